from misc_utils.messages import counted


def test_long_lists_are_cut():
    assert counted(["b", "a"]) == "2: a, b"
    assert counted(f"n{k:02d}" for k in range(12)).endswith("n08, n09 and 2 more")
