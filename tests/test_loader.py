"""Batches from files: the same bytes whoever prepares them, and nothing left behind however it ends."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import data
from cnnengine.backends.registry import unavailable
from cnnengine.data import transforms as T
from cnnengine.data import workers as workers_module
from cnnengine.data.part import sample_rng
from cnnengine.errors import DataError, WorkerDied

from . import tiny_images

MEMORY = Path("/dev/shm")
AUGMENT = T.Compose(T.RandomResizedCrop(16), T.HorizontalFlip(), T.RandAugment(), T.RandomErasing())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Every test ends without processes and without shared memory."""
    yield
    gc.collect()
    assert multiprocessing.active_children() == []
    assert _memory() == set()


def _memory(pid: int | None = None) -> set[str]:
    """The names of shared memory of a process, this one by default."""
    names = os.listdir(MEMORY) if MEMORY.is_dir() else []
    return {name for name in names if name.startswith(f"cnnengine-{pid or os.getpid()}-")}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15 pictures in three folders."""
    return tiny_images.folders(tmp_path_factory.mktemp("images"))


Bytes = list[tuple[bytes, list[int]]]


def _bytes(part: data.Part, **how: Any) -> Bytes:
    return [(x.tobytes(), y.tolist()) for x, y in part.batches(4, **how)]


def _parts(root: Path, tmp_path: Path) -> dict[str, data.Part]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (15, 20, 24, 3), dtype=np.uint8)
    return {
        "folder": data.ImageFolder(root),
        "shards": data.TarShards(tiny_images.shards(tmp_path), tiny_images.COLOURS, buffer=4),
        "arrays": data.from_arrays(images, np.arange(15) % 3, images, np.arange(15) % 3).train,
    }


@pytest.mark.parametrize("kind", ["folder", "shards", "arrays"])
def test_workers_change_nothing(root: Path, tmp_path: Path, kind: str) -> None:
    part = _parts(root, tmp_path)[kind]
    how = {"shuffle": True, "seed": 3, "epoch": 2, "transform": AUGMENT}
    alone = _bytes(part, **how)
    assert [len(labels) for _, labels in alone] == [4, 4, 4, 3]
    for workers in (1, 3):
        assert _bytes(part, workers=workers, **how) == alone
    assert _bytes(part, workers=1, start=2, **how) == _bytes(part, start=2, **how) == alone[2:]
    assert _bytes(part, start=4, **how) == _bytes(part, start=9, workers=1, **how) == []
    assert _bytes(part, drop_last=True, **how) == alone[:3]
    assert _bytes(part, **how | {"epoch": 3}) != alone
    assert _bytes(part, **how | {"seed": 4}) != alone


def test_an_images_numbers_depend_on_nothing_but_seed_epoch_and_image(root: Path) -> None:
    """In another order and in batches of another size each picture is augmented as before."""
    part = data.ImageFolder(root)

    def by_image(size: int, shuffle: bool) -> dict[tuple[int, bytes], int]:
        found: dict[tuple[int, bytes], int] = {}
        for images, labels in part.batches(size, shuffle=shuffle, seed=1, epoch=5, transform=AUGMENT):
            for image, label in zip(images, labels.tolist(), strict=True):
                found[label, image.tobytes()] = 1
        return found

    assert by_image(4, True) == by_image(7, False)
    assert len(by_image(4, True)) == 15


def test_numbers_of_images_seeds_and_epochs_do_not_meet() -> None:
    keys = [
        (0, 0, 0, 0),
        (0, 0, 1, 0),
        (0, 1, 0, 0),
        (1, 0, 0, 0),
        (0, 0, 0, 1),
        (2**32, 0, 0, 0),
        (2**64 - 1, 0, 0, 0),
    ]
    draws = {tuple(sample_rng(*key).integers(0, 2**63, 4).tolist()) for key in keys}
    assert len(draws) == len(keys)


def test_the_order_is_that_of_the_trainer() -> None:
    digits = data.digits()
    rng = np.random.default_rng((7, 2))
    expected = data.batches(digits.train_images, digits.train_labels, 64, shuffle=True, rng=rng, start=3)
    got = digits.train.batches(64, shuffle=True, seed=7, epoch=2, start=3)
    for (x, y), (a, b) in zip(expected, got, strict=True):
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)


def _float(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    return np.float32(rng.random()) * np.asarray(picture, np.float32)


def test_batches_may_be_of_floats_and_of_any_size(root: Path, tmp_path: Path) -> None:
    part = data.ImageFolder(root)
    (x, _), *_ = part.batches(4, transform=_float, workers=1)
    assert (x.dtype, x.shape) == (np.float32, (4, 20, 24, 3))
    assert x.flags.writeable
    for i, size in enumerate([(5, 4), (50, 40), (3, 9)]):
        (tmp_path / "one").mkdir(exist_ok=True)
        tiny_images.picture(i, 0, size).save(tmp_path / "one" / f"{i}.png")
    sizes = data.ImageFolder(tmp_path)
    for workers in (0, 2):  # larger ones than the first do not fit their place in shared memory
        assert [x.shape[1:3] for x, _ in sizes.batches(1, workers=workers)] == [(4, 5), (40, 50), (9, 3)]
        with pytest.raises(DataError, match=r"1\.png: uint8 \(40, 50, 3\), but the batch began with uint8 \(4, 5, 3\)"):
            list(sizes.batches(2, workers=workers))


def test_grey_pictures_have_one_channel(root: Path) -> None:
    (x, _), *_ = data.ImageFolder(root, channels=1).batches(4)
    assert x.shape == (4, 20, 24, 1)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(root: Path, tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, sys\n"
        "from cnnengine import data\n"
        "from tests.test_loader import AUGMENT, _bytes\n"
        "if __name__ == '__main__':\n"
        f"    multiprocessing.set_start_method({method!r})\n"
        "    part = data.ImageFolder(sys.argv[1])\n"
        "    assert _bytes(part, transform=AUGMENT, workers=2) == _bytes(part, transform=AUGMENT)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = [sys.executable, "-W", "error", str(program), str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def _convolved(picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Computes with all threads of the native backend."""
    x = np.asarray(picture.resize((96, 96)), np.float32)[np.newaxis] / 255
    w = np.random.default_rng(0).random((8, 3, 3, 3), np.float32)
    with cnn.use_backend("native"), cnn.no_grad():
        return F.relu(F.conv2d(cnn.Tensor(x), cnn.Tensor(w), padding=1)).numpy()[0]


def test_the_native_backend_works_on_both_sides(root: Path) -> None:
    """Its threads run while workers are forked, in this process between two batches, and anew in the workers."""
    if reason := unavailable("native"):
        pytest.skip(f"backend native is absent: {reason}")
    part = data.ImageFolder(root)
    alone = [x.tobytes() for x, _ in part.batches(4, transform=_convolved)]
    beside = []
    for x, _ in part.batches(4, transform=_convolved, workers=2):
        _convolved(tiny_images.picture(0, 0), np.random.default_rng())
        beside.append(x.tobytes())
    assert beside == alone


# ---- what goes wrong


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """12 pictures, three of them no pictures."""
    folder = tiny_images.folders(tmp_path / "damaged", each=4)
    good = (folder / "red" / "000.png").read_bytes()
    (folder / "blue" / "001.png").write_bytes(good[: len(good) // 2])
    (folder / "green" / "000.png").write_bytes(b"")
    (folder / "red" / "003.png").write_bytes(b"\xff\xd8\xff\xe0 not a JPEG")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_stops(damaged: Path, workers: int) -> None:
    walk = data.ImageFolder(damaged).batches(3, workers=workers)
    with pytest.raises(DataError, match=r"blue/001\.png: the image is truncated or corrupt"):
        next(walk)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_that_cannot_be_read_are_skipped_and_counted(damaged: Path, workers: int) -> None:
    part = data.ImageFolder(damaged, on_error="skip")
    with pytest.warns(data.SkippedImage) as caught:
        labels = [y.tolist() for _, y in part.batches(3, workers=workers)]
    assert labels == [[0, 0], [0, 1], [1, 1, 2], [2, 2]]
    assert [Path(name).parent.name for name in part.faults] == ["blue", "green", "red"]
    assert "truncated or corrupt" in next(iter(part.faults.values()))
    assert [str(warning.message) for warning in caught] == [f"skipped: {reason}" for reason in part.faults.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the second time they are known
        assert [y.tolist() for _, y in part.batches(3, workers=workers)] == labels
    assert len(part.faults) == 3


def test_a_batch_without_any_picture_is_an_error(tmp_path: Path) -> None:
    folder = tiny_images.folders(tmp_path / "images", each=2)
    for path in (folder / "green").iterdir():
        path.write_bytes(b"x")
    for workers in (0, 1):
        part = data.ImageFolder(folder, on_error="skip")
        walk = part.batches(2, workers=workers)
        next(walk)
        with pytest.warns(data.SkippedImage):
            _take(walk, DataError, "batch 1 is empty: none of its images")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_images.folders(tmp_path / "images", each=1)
    for limit in (300, 100):  # 480 pixels: Pillow warns above its limit, raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"000\.png: the picture is too large"):
            list(data.ImageFolder(folder).batches(1))


class _Fails:
    """A transform with a mistake, at one picture."""

    def __init__(self, mistake: Callable[[], object]) -> None:
        self.mistake = mistake

    def __call__(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        if np.asarray(picture)[0, 0, 0] > 200:  # red
            self.mistake()
        return picture


class _Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("its pickle has one argument")


def _divide() -> float:
    return 1 / 0


def _unpicklable() -> None:
    raise _Unpicklable(1, 2)


def _exit() -> None:
    os._exit(7)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _take(walk: Iterator[Any], error: type[Exception], match: str) -> int:
    """How many batches came before the error."""
    taken: list[Any] = []
    with pytest.raises(error, match=match):
        taken.extend(walk)  # keeps what came before the error
    return len(taken)


def test_an_error_in_a_transform_is_raised_where_it_belongs(root: Path) -> None:
    part = data.ImageFolder(root)
    for workers in (0, 1, 3):
        assert _take(part.batches(5, transform=_Fails(_divide), workers=workers), ZeroDivisionError, "division") == 2
    with pytest.raises(ZeroDivisionError) as caught:
        list(part.batches(5, transform=_Fails(_divide), workers=1))
    assert "in data worker 0:" in caught.value.__notes__[0]
    assert "_divide" in caught.value.__notes__[0]
    walk = part.batches(5, transform=_Fails(_unpicklable), workers=1)
    assert _take(walk, RuntimeError, "_Unpicklable: its pickle has one argument") == 2


def test_a_worker_that_dies_is_named(root: Path) -> None:
    part = data.ImageFolder(root)
    exits = part.batches(5, transform=_Fails(_exit), workers=2)
    message = r"data worker 0 \(process \d+\) ended with exit status 7 while it prepared batch 2"
    assert _take(exits, WorkerDied, message) == 2
    killed = part.batches(5, transform=_Fails(_kill), workers=3)
    assert _take(killed, WorkerDied, r"data worker 2 \(process \d+\) was killed by SIGKILL while") == 2


def test_a_worker_that_is_killed_between_two_batches_is_named(root: Path) -> None:
    walk = data.ImageFolder(root).batches(1, transform=T.Resize(8), workers=2)
    next(walk)
    (victim,) = (child for child in multiprocessing.active_children() if child.name == "data worker 1")
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    assert _take(walk, WorkerDied, "data worker 1 .* was killed by SIGKILL") <= 4  # what it had done is still taken


def test_leaving_early_ends_the_workers(root: Path) -> None:
    part = data.ImageFolder(root)
    for _ in part.batches(2, workers=2):
        assert len(multiprocessing.active_children()) == 2
        break
    gc.collect()
    assert multiprocessing.active_children() == []
    walk = part.batches(2, workers=2)
    next(walk)
    stopped = multiprocessing.active_children()[0].pid or 0
    os.kill(stopped, signal.SIGSTOP)  # as a debugger does
    walk.close()  # type: ignore[attr-defined]


PROGRAM = """
import sys, time
import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import data
from cnnengine.backends.registry import unavailable
from cnnengine.data import transforms as T
walk = data.ImageFolder(sys.argv[1]).batches(1, transform=T.Resize(300), workers=2)
next(walk)
import multiprocessing
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
for _ in walk:
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_program_is_ended(root: Path, number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = [sys.executable, "-c", PROGRAM, str(root)]
    program = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert program.stdout is not None
    children = [int(pid) for pid in program.stdout.readline().split()]
    assert len(children) == 2
    if number == signal.SIGINT:
        os.killpg(program.pid, number)  # as a terminal does: to all processes of the group
    else:
        program.send_signal(number)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == -number
    assert "leaked" not in errors
    assert _memory(program.pid) == set()
    assert errors.count("Traceback") == (number == signal.SIGINT)
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in children):
        assert time.monotonic() < deadline, "a worker outlived its program"
        time.sleep(0.02)


STOPPED_LATER = """
import signal, sys, time
from cnnengine import data
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
walk = data.ImageFolder(sys.argv[1]).batches(1, workers=2)
next(walk)
print("ready", flush=True)
while not stopped:
    time.sleep(0.01)
for x, labels in walk:
    print(labels[0], flush=True)
    if sys.argv[2] == "leave":
        break
"""


@pytest.mark.parametrize(("how", "batches"), [("finish", 14), ("leave", 1)])
def test_a_signal_to_the_group_leaves_it_to_the_program(root: Path, how: str, batches: int) -> None:
    """SIGTERM, which a batch system sends to all processes of a job, does not end the workers; the end of the program
    does, also where it still holds the walk."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = [sys.executable, "-c", STOPPED_LATER, str(root), how]
    program = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    os.killpg(program.pid, signal.SIGTERM)
    out, errors = program.communicate(timeout=60)
    assert (program.returncode, errors, len(out.split())) == (0, "", batches)


def _runs(pid: int) -> bool:
    """Whether the process is there, and no zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_too_little_shared_memory_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module.shutil, "disk_usage", lambda path: _Free)
    with pytest.raises(OSError, match=r"2 data workers need .* MB of shared memory, 0 MB are free: take fewer"):
        next(data.ImageFolder(root).batches(4, workers=2))


class _Free:
    free = 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an int of at least 1, got 0"),
        ({"batch_size": 4, "workers": -1}, "workers must be an int of at least 0, got -1"),
        ({"batch_size": 4, "seed": -1}, "seed must be an int of at least 0"),
        ({"batch_size": 4, "start": 1.5}, "start must be an int of at least 0, got 1.5"),
    ],
)
def test_batches_refuses_what_cannot_be(root: Path, arguments: dict[str, Any], message: str) -> None:
    for part in (data.ImageFolder(root), data.digits().train):
        with pytest.raises(ValueError, match=message):
            part.batches(**arguments)


def test_a_transform_must_give_a_picture(root: Path) -> None:
    with pytest.raises(TypeError, match=r"a transform gave float64 \(20, 24, 3\)"):
        next(data.ImageFolder(root).batches(2, transform=lambda picture, rng: np.asarray(picture) / 255))
