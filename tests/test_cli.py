"""The command as a user meets it: what it prints, its exit status, Ctrl-C, and one sentence for every error."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnengine as cnn
from cnnengine import cli, data
from cnnengine.backends.registry import NAMES, unavailable
from cnnengine.commands import common, predict
from cnnengine.jit import nvrtc
from cnnengine.training import Interrupted, Trainer

from . import tiny_mnist

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CNNENGINE_DATA", raising=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ROOT of a data set of 200 + 60 digits in MNIST's place."""
    return tiny_mnist.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A finished run of two epochs on it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--epochs", "2", "--batch-size", "16"]
    assert cli.main([*arguments, "--run-dir", str(folder)]) == 0
    return folder


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence a failing command says on stderr, behind what it says of downloads."""
    capsys.readouterr()
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert not captured.out
    *before, last = captured.err.splitlines()
    assert all(": downloading " in line for line in before), captured.err
    assert last.startswith("cnnengine: error: ")
    return last.removeprefix("cnnengine: error: ")


def _start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cnnengine", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ---- train


def test_train_reports_epochs_and_writes_the_run(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--epochs", "2", "--seed", "3"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "61,706 parameters; MNIST, 200 training and 60 test images; backend" in out
    assert "seed 3; into runs/lenet5-mnist" in out
    assert re.search(r"epoch  2/2   loss \d\.\d+   train +\d+\.\d+ %   test +\d+\.\d+ %", out)
    folder = tmp_path / "runs" / "lenet5-mnist"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"test accuracy {100 * metrics['test_accuracy']:.2f} % after 2 epochs" in out
    assert (metrics["seed"], metrics["epochs"], metrics["data"]) == (3, 2, "mnist")
    assert cli.main(arguments) == 0  # the same again goes beside, and gives the same bits
    again = tmp_path / "runs" / "lenet5-mnist-2"
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_train_keeps_a_run_unless_told(tiny: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--epochs", "1", "--run-dir", str(trained)]
    before = (trained / "model.safetensors").read_bytes()
    assert "holds a run already: go on with --resume, or begin anew with --overwrite" in _error(capsys, *arguments)
    assert (trained / "model.safetensors").read_bytes() == before


def test_train_overwrites_when_told(tiny: Path, tmp_path: Path) -> None:
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--epochs", "1", "--name", "mine"]
    assert cli.main([*arguments, "--seed", "1"]) == 0
    first = (tmp_path / "runs" / "mine" / "model.safetensors").read_bytes()
    assert cli.main([*arguments, "--seed", "2", "--overwrite"]) == 0
    assert (tmp_path / "runs" / "mine" / "model.safetensors").read_bytes() != first


def test_a_new_run_does_not_keep_the_results_of_the_old(
    trained: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(trainer: Trainer) -> None:
        trainer.save()
        raise Interrupted

    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(Trainer, "run", press)
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--run-dir", "run", "--overwrite"]
    assert cli.main(arguments) == 130
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"model.safetensors", "checkpoint.safetensors"}


def test_ctrl_c_leaves_a_checkpoint_that_goes_on_bit_for_bit(tiny: Path, tmp_path: Path) -> None:
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--epochs", "30", "--batch-size", "50"]
    process = _start(*arguments, "--name", "parts")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch  1/"):
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    found = re.search(r"interrupted in epoch \d+ of 30, behind batch \d of 4; .*To go on:\n  cnnengine (.*)\n", err)
    assert found, err
    assert cli.main(["predict", "runs/parts", _digit(tmp_path)]) == 0  # the weights so far can be used
    assert cli.main(shlex.split(found[1])) == 0
    assert cli.main([*arguments, "--name", "whole"]) == 0
    parts, whole = (tmp_path / "runs" / name / "model.safetensors" for name in ("parts", "whole"))
    assert parts.read_bytes() == whole.read_bytes()


def test_resume_refuses_other_settings(tiny: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = _error(capsys, "train", "lenet5", "--run-dir", str(trained), "--resume", "--epochs", "9", "--lr", "1")
    assert message.endswith(
        "cannot be resumed with other settings: epochs is 2 there, not 9; lr is 0.05 there, not 1.0"
    )


def test_resume_takes_the_settings_of_the_run(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "lenet5", "--run-dir", str(trained), "--resume"]) == 0
    assert "resumed behind epoch 2, batch 0 of 13" in capsys.readouterr().out


def test_resume_wants_to_know_which_run(capsys: pytest.CaptureFixture[str]) -> None:
    message = _error(capsys, "train", "lenet5", "--resume")
    assert message == "--resume needs to know which run, by --name or --run-dir; in runs there are none"
    message = _error(capsys, "train", "lenet5", "--name", "gone", "--resume")
    assert message == "runs/gone: there is no checkpoint.safetensors here, so nothing to resume"


def test_a_damaged_checkpoint_is_named(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes((trained / "checkpoint.safetensors").read_bytes()[:999])
    assert "truncated or corrupt" in _error(capsys, "train", "lenet5", "--run-dir", "run", "--resume")


def test_missing_data_is_named_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*arguments: object, **more: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    message = _error(capsys, "train", "lenet5", "--data", "fashion_mnist", "--root", "nowhere")
    assert "Fashion-MNIST: train-images-idx3-ubyte is missing and could not be downloaded" in message
    assert "no network here" in message
    assert message.endswith("t10k-labels-idx1-ubyte into nowhere/FashionMNIST/raw, each as it is or as .gz")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_named(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--epochs", "1"]
    capsys.readouterr()
    assert cli.main(arguments) == 2
    assert "error: runs/lenet5-mnist: Not a directory" in capsys.readouterr().err


def test_a_file_is_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("mine")
    assert _error(capsys, "train", "lenet5", "--run-dir", "notes") == "notes is a file: a run needs a folder"
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_diverged_training_is_named(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "lenet5", "--data", "mnist", "--root", str(tiny), "--epochs", "1", "--lr", "1e30"]
    assert cli.main(arguments) == 0
    expected = "cnnengine: warning: the loss is nan: training has diverged, a smaller --lr may help\n"
    assert capsys.readouterr().err.endswith(expected)
    assert json.loads((tmp_path / "runs" / "lenet5-mnist" / "metrics.json").read_text())["train_loss"] is None


def test_an_absent_backend_is_named_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    absent = [name for name, reason in cnn.backends.available().items() if reason]
    if not absent:
        pytest.skip("every backend is available here")
    reason = cnn.backends.available()[absent[0]]
    message = _error(capsys, "train", "lenet5", "--data", "mnist", "--root", "nowhere", "--backend", absent[0])
    assert message == f"backend {absent[0]!r} is not available: {reason}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "model"),
        (["train", "resnet"], "invalid choice: 'resnet'"),
        (["train", "lenet5", "--data", "imagenet"], "invalid choice: 'imagenet'"),
        (["train", "lenet5", "--backend", "tpu"], "invalid choice: 'tpu'"),
        (["train", "lenet5", "--epochs", "0"], "argument --epochs: must be at least 1, received 0"),
        (["train", "lenet5", "--epochs", "two"], "invalid .* value: 'two'"),
        (["train", "lenet5", "--batch-size", "-3"], "argument --batch-size: must be at least 1"),
        (["train", "lenet5", "--lr", "nan"], "argument --lr: must be a finite number, 0 or above, received nan"),
        (["train", "lenet5", "--seed", "-1"], r"argument --seed: must lie in \[0, 2\*\*64\), received -1"),
        (["train", "lenet5", "--name", "a", "--run-dir", "b"], "not allowed with"),
        (["predict", "model"], "IMAGE"),
        (["cache", "burn"], "invalid choice: 'burn'"),
        (["precompile", "resnet"], "invalid choice: 'resnet'"),
        (["precompile", "lenet5", "--workers", "0"], "argument --workers: must be at least 1, received 0"),
        (["precompile", "lenet5", "--dtype", "float64"], "invalid choice: 'float64'"),
    ],
)
def test_wrong_usage_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert not list(tmp_path.iterdir())


def test_a_name_is_no_path(capsys: pytest.CaptureFixture[str]) -> None:
    message = _error(capsys, "train", "lenet5", "--name", "../up")
    assert message == "--name must be a plain name, received '../up'; for a path use --run-dir"


def test_an_empty_name_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--name must be a plain name, received ''" in _error(capsys, "train", "lenet5", "--name", "")
    assert _error(capsys, "train", "lenet5", "--run-dir", "") == "--run-dir must name a folder, received ''"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CNNENGINE_BACKEND", "tpu", "CNNENGINE_BACKEND must be one of native, .*, received 'tpu'"),
        ("CNNENGINE_ISA", "mmx", r"CNNENGINE_ISA: expected an instruction set this CPU has \(generic.*received 'mmx'"),
        ("CNNENGINE_NUM_THREADS", "many", "CNNENGINE_NUM_THREADS must be a number of threads .*, received 'many'"),
    ],
)
def test_a_wrong_environment_is_named(
    variable: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CNNENGINE_BACKEND", raising=False)
    monkeypatch.setenv(variable, value)
    _, err = (training := _start("train", "lenet5", "--epochs", "1")).communicate(timeout=120)
    assert training.returncode == 2
    assert re.fullmatch(f"cnnengine: error: .*{message}\n", err), err
    assert not list(tmp_path.iterdir())


def test_the_environments_backend_must_be_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "unavailable", lambda name: "it is not here")
    monkeypatch.setenv("CNNENGINE_BACKEND", "cuda")
    message = _error(capsys, "train", "lenet5")
    assert message == "CNNENGINE_BACKEND: backend 'cuda' is not available: it is not here"


def test_numpy_in_place_of_native_is_said(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CNNENGINE_BACKEND", raising=False)
    monkeypatch.setattr(common, "unavailable", lambda name: None if name == "numpy" else "it is not built")
    capsys.readouterr()
    assert cli.main(["predict", str(trained), _digit(tmp_path)]) == 0
    assert capsys.readouterr().err == "cnnengine: warning: computing with NumPy, slowly: it is not built\n"


@pytest.mark.filterwarnings("always")
def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*arguments: object) -> list[list[tuple[str, float]]]:
        warnings.warn("the kernel cache cannot be written", RuntimeWarning, stacklevel=2)
        return [[]]

    monkeypatch.setattr(predict, "from_run", lambda path: None)
    monkeypatch.setattr(predict, "classify", warn)
    assert cli.main(["predict", "model", "image.png", "--backend", "numpy"]) == 0
    assert capsys.readouterr().err == "cnnengine: warning: the kernel cache cannot be written\n"


def test_ctrl_c_outside_the_loop_exits_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "from_run", press)
    assert cli.main(["predict", "model", "image.png"]) == 130
    assert capsys.readouterr().err == "\ncnnengine: interrupted\n"


def test_help_and_version_exit_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["train", "--help"], ["--version"]):
        assert cli.main(arguments) == 0
    assert cnn.__version__ in capsys.readouterr().out


# ---- predict


def _digit(folder: Path, index: int = 0) -> str:
    path = folder / f"digit{index}.png"
    Image.fromarray(data.digits().train_images[index, :, :, 0]).save(path)
    return str(path)


def test_predict_prints_the_three_likeliest(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [_digit(tmp_path, i) for i in range(3)]
    for model in (trained, trained / "model.safetensors"):
        capsys.readouterr()
        assert cli.main(["predict", str(model), *images]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        for line, image in zip(lines, images, strict=True):
            assert line.startswith(image)
            shares = [float(p) for p in re.findall(r"\d +(\d+\.\d) %", line)]
            assert len(shares) == 3
            assert shares == sorted(shares, reverse=True)


def test_predict_agrees_with_the_model(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = cnn.models.lenet5()
    model.load_state_dict(cnn.load(trained / "model.safetensors"))
    digits = data.digits()
    with cnn.no_grad():
        expected = model(cnn.Tensor(digits.normalize(digits.train_images[:4]))).numpy().argmax(1)
    assert cli.main(["predict", str(trained), *(_digit(tmp_path, i) for i in range(4))]) == 0
    got = [int(re.split(r"png +", line)[1][0]) for line in capsys.readouterr().out.splitlines()]
    assert got == expected.tolist()


def test_weights_without_a_description_are_taken_for_digits(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cnn.save(cnn.load(trained / "model.safetensors"), tmp_path / "bare.safetensors")
    assert cli.main(["predict", str(trained), _digit(tmp_path)]) == 0
    described = capsys.readouterr().out
    assert cli.main(["predict", "bare.safetensors", _digit(tmp_path)]) == 0
    assert capsys.readouterr().out == described


def test_predict_names_what_it_cannot_read(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, digit = str(trained), _digit(tmp_path)
    assert _error(capsys, "predict", model, "gone.png") == "gone.png: there is no such image"
    (tmp_path / "text.png").write_text("hello")
    assert _error(capsys, "predict", model, digit, "text.png").startswith("text.png: not an image")
    assert "gone.safetensors: cannot be read: No such file" in _error(capsys, "predict", "gone.safetensors", digit)
    (tmp_path / "half.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:2000])
    assert "truncated or corrupt" in _error(capsys, "predict", "half.safetensors", digit)
    cnn.save({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    assert "these are not the weights of lenet5" in _error(capsys, "predict", "other.safetensors", digit)
    cnn.save({"a": np.zeros(3)}, tmp_path / "odd.safetensors", metadata={"cnnengine": '{"model": "resnet"}'})
    assert "holds no model that this version of cnnengine knows" in _error(capsys, "predict", "odd.safetensors", digit)
    cnn.save({"a": np.zeros(3)}, tmp_path / "odd.safetensors", metadata={"cnnengine": '{"mean": "grey"}'})
    assert "could not convert string to float: 'grey'" in _error(capsys, "predict", "odd.safetensors", digit)


# ---- backends and cache


def test_backends_lists_all_five_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["backend", "device", "dtypes", "state"]
    assert [line.split()[0] for line in lines[1:6]] == list(NAMES)
    for line, (name, reason) in zip(lines[1:6], cnn.backends.available().items(), strict=True):
        if reason is None:
            assert "float32" in line, name
            assert line.endswith("available"), name
        else:
            assert line.endswith(f"not available: {reason}"), name
    assert lines[6].startswith("by default: ")


def test_cache_is_shown_and_cleared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CNNENGINE_CACHE", str(tmp_path / "kernels"))
    assert cli.main(["cache"]) == 0
    assert f"{tmp_path / 'kernels'}: 0 compiled kernels" in capsys.readouterr().out
    from cnnengine.jit.cache import default_cache

    default_cache().fetch_bytes("abc", ".bin", lambda: b"kernel")
    assert cli.main(["cache", "info"]) == 0
    assert ": 1 compiled kernels" in capsys.readouterr().out
    assert cli.main(["cache", "clear"]) == 0
    assert "1 compiled kernels removed" in capsys.readouterr().out
    assert not list((tmp_path / "kernels").iterdir())


def test_precompile_compiles_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if (reason := nvrtc.problem()) is not None:
        pytest.skip(reason)
    monkeypatch.setenv("CNNENGINE_CACHE", str(tmp_path / "kernels"))
    command = ["precompile", "lenet5", "--inference", "--arch", "sm_75", "--batch", "8", "--workers", "1"]
    assert cli.main(command) == 0
    first = capsys.readouterr().out
    count = re.match(r"lenet5, inference in float32, batch 8, sm_75: (\d+) kernels, (\d+) compiled in", first)
    assert count is not None, first
    assert count[1] == count[2] != "0"
    assert cli.main(command) == 0
    assert f": {count[1]} kernels, 0 compiled in" in capsys.readouterr().out


def test_precompile_needs_a_gpu_or_an_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    message = _error(capsys, "precompile", "lenet5", "--arch", "hopper")
    assert message == "--arch: arch must be an architecture such as 'sm_90a', received 'hopper'"
    if unavailable("cuda") is not None:
        assert "name an architecture, such as arch='sm_90a'" in _error(capsys, "precompile", "lenet5")


# ---- as a process


def test_python_m_cnnengine_is_the_command() -> None:
    process = _start("predict", "gone", "gone.png")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (
        2,
        "",
        "cnnengine: error: gone: cannot be read: No such file or directory\n",
    )


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = _start("backends")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert err == ""


def test_ctrl_c_at_the_start_leaves_no_traceback() -> None:
    process = _start("train", "lenet5", "--epochs", "50")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("lenet5, 61,706 parameters; digits")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
