"""What tests leave out that do not look at it."""

import contextlib
import io


@contextlib.contextmanager
def run_eagerly():
    """TensorFlow does not trace, which takes longer than two steps do."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow

    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)


def draw_nothing(patch):
    """Charts are built; their files hold one pixel. `patch` is a pytest.MonkeyPatch."""
    from matplotlib.figure import Figure
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGBA", (1, 1)).save(buffer, "PNG")

    def savefig(figure, file, **_):
        write = file.write if hasattr(file, "write") else file.write_bytes
        write(buffer.getvalue())

    patch.setattr(Figure, "savefig", savefig)
