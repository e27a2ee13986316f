import show_preprocessing


def test_a_sheet_of_each_step(root, run_script, monkeypatch):
    from reports import figures

    drawn = []
    draw = figures.draw_sheet
    monkeypatch.setattr(figures, "draw_sheet", lambda *args: (drawn.append(args), draw(*args)))
    code, out, err = run_script(show_preprocessing, "--count", "2")
    assert code == 0, err
    ((file, pictures, titles),) = drawn
    assert file == root / "data/cache/preprocessing_isic2018_task3.png" and file.exists()
    assert str(file) in out and len(pictures) == len(titles) == 8
    assert titles[1:4] == ["shades of grey", "crop borders", "remove hair"]
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
    drawn.clear()
    code, out, err = run_script(show_preprocessing, "--image-ids", titles[4], titles[0])
    assert code == 0 and drawn[0][2][0] == titles[4] and drawn[0][2][4] == titles[0]
    code, out, err = run_script(show_preprocessing, "--image-ids", "ISIC_9")
    assert code == 1 and "no training image ISIC_9 in isic2018" in err
