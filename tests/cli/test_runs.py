"""Runs from config to bank: settings as resolved, folders never shared, resumed or refused, found again."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from commands import run_here

from repro import records
from repro.banks import Bank
from repro.checkpoints.native import read_checkpoint
from repro.cli.runs import claim
from repro.errors import UserError

FIT = ("fit", "--config", "tiny.yaml")


def printed(*words: str) -> dict:
    shown = run_here(*words, "--print_config")
    assert shown.code == 0, shown
    return yaml.safe_load(shown.out)


def test_sizes_are_filled_in_from_data_and_task(workplace: Path) -> None:
    plain = printed(*FIT)
    network = plain["model"]["init_args"]["network"]["init_args"]
    assert (network["image_size"], network["channels"], network["num_classes"]) == (8, 1, 0)
    assert plain["task"] == "unconditional"
    conditional = printed(*FIT, "--task", "conditional", "--data.resize", "16")
    network = conditional["model"]["init_args"]["network"]["init_args"]
    assert (network["image_size"], network["channels"], network["num_classes"]) == (16, 1, 10)
    inferred = printed(*FIT, "--model.network.num_classes", "10")
    assert inferred["task"] == "conditional"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_printed_settings_come_back_unchanged(workplace: Path, command: str) -> None:
    first = run_here(command, "--config", "tiny.yaml", "--model.lr", "1e-3", "--print_config")
    (workplace / "printed.yaml").write_text(first.out)
    second = run_here(command, "--config", "printed.yaml", "--print_config")
    assert second.out == first.out
    assert yaml.safe_load(first.out)["model"]["init_args"]["lr"] == 1e-3


def test_incomplete_settings_can_be_printed(workplace: Path) -> None:
    plain = printed("fit", "--model.network", "UViT")
    assert plain["model"]["class_path"] == "Diffusion"
    assert plain["model"]["init_args"]["network"]["class_path"] == "UViT"
    assert plain["model"]["init_args"]["kernel"] is None


def test_the_command_line_overrides_the_file(workplace: Path) -> None:
    plain = printed(*FIT, "--model.network.width", "24", "--trainer.max_steps", "9", "--data.seed", "5")
    assert plain["model"]["init_args"]["network"]["init_args"]["width"] == 24
    assert plain["model"]["init_args"]["network"]["init_args"]["depth"] == 1
    assert plain["trainer"]["max_steps"] == 9
    assert plain["data"]["init_args"]["seed"] == 5
    assert plain["data"]["init_args"]["subset"] == 64


def test_a_null_of_the_command_line_reaches_nested_classes(workplace: Path) -> None:
    (workplace / "sized.yaml").write_text(
        (workplace / "tiny.yaml").read_text().replace("{width: 16", "{image_size: 99")
    )
    plain = printed("fit", "--config", "sized.yaml", "--model.network.image_size", "null", "--model.ema_rampup", "null")
    assert plain["model"]["init_args"]["network"]["init_args"]["image_size"] == 8
    assert plain["model"]["init_args"]["ema_rampup"] is None


def test_another_class_keeps_what_it_takes_and_drops_the_rest(workplace: Path) -> None:
    shown = run_here(*FIT, "--model.network", "SongUNet", "--model.sampler", "DPMSolver", "--print_config")
    assert "DPMSolver keeps what the config says of Heun: steps 2" in shown.err
    plain = yaml.safe_load(shown.out)
    network = plain["model"]["init_args"]["network"]
    assert network["class_path"] == "SongUNet"
    assert network["init_args"]["width"] == 16
    assert "depth" not in network["init_args"]
    assert plain["model"]["init_args"]["sampler"]["class_path"] == "DPMSolver"


def test_data_of_the_file_can_be_replaced(workplace: Path) -> None:
    from PIL import Image

    for number in range(4):
        (workplace / "pictures" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), (number, 0, 9)).save(workplace / "pictures" / str(number % 2) / f"{number}.png")
    words = ("--data", "ImageArchive", "--data.path", "pictures", "--data.subset", "3")
    plain = printed(*FIT, *words, "--task", "conditional")
    assert plain["data"]["class_path"] == "ImageArchive"
    assert plain["data"]["init_args"]["batch_size"] == 8
    network = plain["model"]["init_args"]["network"]["init_args"]
    assert (network["image_size"], network["channels"], network["num_classes"]) == (6, 3, 2)


def test_images_that_are_not_square(workplace: Path) -> None:
    from PIL import Image

    (workplace / "wide").mkdir()
    Image.new("L", (6, 4)).save(workplace / "wide" / "0.png")
    plain = printed(*FIT, "--data", "ImageArchive", "--data.path", "wide", "--data.subset", "1")
    assert plain["model"]["init_args"]["network"]["init_args"]["image_size"] == [4, 6]


def test_a_run_has_settings_checkpoint_and_curves(trained: Path) -> None:
    folder = trained / "runs" / "tiny"
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved == printed(*FIT)
    assert read_checkpoint(folder)["repro"]["training"]["images_seen"] == 3 * 8
    assert json.loads((folder / "run.json").read_text())["finished"] is True
    assert list(folder.glob("events.out.tfevents.*"))


def test_a_second_run_gets_its_own_folder(trained: Path) -> None:
    before = (trained / "runs" / "tiny" / "checkpoints" / "last.ckpt").read_bytes()
    done = run_here(*FIT, "--model.seed", "1")
    assert "run: runs/tiny-2" in done.out
    saved = run_here("fit", "--config", "runs/tiny-2/config.yaml", "--name", "again")
    assert "run: runs/again" in saved.out
    assert (trained / "runs" / "tiny" / "checkpoints" / "last.ckpt").read_bytes() == before
    both = [read_checkpoint(trained / "runs" / name)["state_dict"] for name in ("tiny-2", "again")]
    assert all(torch.equal(both[0][key], both[1][key]) for key in both[0])


def test_resuming_goes_on_in_the_same_folder(trained: Path) -> None:
    shutil.copytree("runs/tiny", "runs/short")
    done = run_here("fit", "--ckpt_path", "runs/short", "--trainer.max_steps", "6")
    assert done.code == 0, done
    assert "run: runs/short" in done.out
    assert read_checkpoint("runs/short")["global_step"] == 6
    assert yaml.safe_load(Path("runs/short/config.yaml").read_text())["trainer"]["max_steps"] == 6
    whole = run_here(*FIT, "--trainer.max_steps", "6", "--name", "whole")
    assert whole.code == 0, whole
    resumed, uninterrupted = (read_checkpoint(f"runs/{name}")["state_dict"] for name in ("short", "whole"))
    assert all(torch.equal(resumed[key], uninterrupted[key]) for key in uninterrupted)


def test_nothing_is_left_to_do(trained: Path) -> None:
    before = Path("runs/tiny/checkpoints/last.ckpt").read_bytes()
    done = run_here(*FIT, "--ckpt_path", "runs/tiny/checkpoints/last.ckpt")
    assert done.code == 0
    assert "has 3 steps already" in done.out
    assert Path("runs/tiny/checkpoints/last.ckpt").read_bytes() == before


CHANGES = [
    (["--model.lr", "0.5", "--data.seed", "3"], ["model.lr was 0.0002, is now 0.5", "data.seed was 0, is now 3"]),
    (["--model.network.width", "32"], ["model.network.width was 16, is now 32"]),
    (["--model.kernel", "VP", "--model.parameterization", "Eps"], ["model.kernel was EDM, is now VP"]),
    (["--trainer.max_steps", "2"], ["trainer.max_steps was 3, is now 2 (it may only grow)"]),
    (["--trainer.gradient_clip_val", "1"], ["trainer.gradient_clip_val was None, is now 1"]),
    (["--seed_everything", "4"], ["seed_everything was 0, is now 4"]),
]


@pytest.mark.parametrize(("words", "told"), CHANGES)
def test_resuming_under_other_settings_is_refused(trained: Path, words: list[str], told: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("runs/tiny").rglob("*")}
    mistake = run_here("fit", "--ckpt_path", "runs/tiny", *words).mistake
    assert all(part in mistake for part in told), mistake
    assert {path: path.stat().st_mtime_ns for path in Path("runs/tiny").rglob("*")} == before


def test_a_checkpoint_cut_off_or_of_another_shape(trained: Path) -> None:
    shutil.copytree("runs/tiny", "damaged")
    whole = Path("runs/tiny/checkpoints/last.ckpt").read_bytes()
    Path("damaged/checkpoints/last.ckpt").write_bytes(whole[: len(whole) // 2])
    for words in (("predict", "--seeds", "0-1"), ("fit", "--trainer.max_steps", "9")):
        assert "it is cut off, or no checkpoint of repro" in run_here(*words, "--ckpt_path", "damaged").mistake
    checkpoint = torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)
    state = checkpoint["state_dict"].items()
    name = next(key for key, tensor in state if tensor.ndim == 2 and key.startswith("model."))
    checkpoint["state_dict"][name] = checkpoint["state_dict"][name][1:]
    torch.save(checkpoint, "damaged/checkpoints/last.ckpt")
    for words in (("predict", "--seeds", "0-1"), ("fit", "--trainer.max_steps", "9")):
        mistake = run_here(*words, "--ckpt_path", "damaged").mistake
        assert "does not fit the model" in mistake
        assert name.removeprefix("model.") in mistake


def test_what_does_not_change_the_result_may_change(trained: Path) -> None:
    done = run_here("fit", "--ckpt_path", "runs/tiny", "--data.in_memory", "true", "--data.workers", "1")
    assert "has 3 steps already" in done.out


def test_a_run_in_use_is_refused(trained: Path) -> None:
    code = f"import sys, fcntl; file = open({str(trained / 'runs/tiny/.lock')!r}, 'a'); fcntl.flock(file, 2); "
    code += "print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        told = run_here("fit", "--ckpt_path", "runs/tiny", "--trainer.max_steps", "9").mistake
        assert told == "runs/tiny is being trained in by another process; wait for it or stop it"
    finally:
        other.communicate()


def test_a_folder_left_without_a_checkpoint_is_used_again(trained: Path) -> None:
    Path("left").mkdir()
    Path("left/config.yaml").write_text("old")
    Path("left/events.out.tfevents.1").write_text("old")
    assert run_here(*FIT, "--output", "left").code == 0
    assert not Path("left/events.out.tfevents.1").exists()
    assert "left is finished" in run_here(*FIT, "--output", "left").out
    assert "left is not empty" in run_here(*FIT, "--output", "left", "--resume", "never").mistake


def test_the_same_command_goes_on_and_another_one_gets_a_folder_of_its_own(trained: Path) -> None:
    first = run_here(*FIT, "--name", "repeated")
    assert first.code == 0, first
    assert "runs/repeated is finished" in run_here(*FIT, "--name", "repeated").out
    other = run_here(*FIT, "--name", "repeated", "--model.lr", "0.5")
    assert "a run of this name has other settings (model.lr was" in other.err
    assert Path("runs/repeated-2/run.json").is_file()
    run_here(*FIT, "--name", "repeated", "--resume", "never")
    assert Path("runs/repeated-3/run.json").is_file()


def test_predict_takes_the_newest_finished_run_that_fits(trained: Path) -> None:
    conditional = run_here(*FIT, "--task", "conditional", "--name", "classes")
    assert conditional.code == 0, conditional
    Path("runs/unfinished").mkdir()
    Path("runs/unfinished/run.json").write_text('{"finished": false}')
    drawn = run_here("predict", "--seeds", "0-2")
    assert "using runs/classes, the newest finished run that fits" in drawn.err
    assert len(Bank.open("runs/classes/banks/conditional_0-2")) == 30
    wide = ("--config", "tiny.yaml", "--model.network.width", "17")
    assert "no finished run in runs/ fits" in run_here("predict", *wide, "--seeds", "0-2").mistake
    assert run_here("fit", *wide, "--name", "wide").code == 0
    run_here(*FIT, "--name", "newer")
    assert "using runs/wide, " in run_here("predict", *wide, "--seeds", "0-2").err
    record = Bank.open("runs/wide/banks/unconditional_0-2").manifest.model
    assert record["args"]["network"]["args"]["width"] == 17
    assert "using runs/newer, " in run_here("predict", "--task", "unconditional", "--seeds", "0-2").err


def test_predict_with_another_model_than_the_checkpoint(trained: Path) -> None:
    words = ("predict", "--ckpt_path", "runs/tiny", "--config", "tiny.yaml", "--seeds", "0-2")
    assert run_here(*words).code == 0
    assert "model.network.width was 16, is now 32" in run_here(*words, "--model.network.width", "32").mistake


def test_test_scores_against_references_and_training_images(trained: Path) -> None:
    run_here("predict", "--ckpt_path", "runs/tiny", "--seeds", "0-4", "--output", "reference")
    words = ("test", "--ckpt_path", "runs/tiny", "--seeds", "0-4", "--descriptor", "Pixels")
    done = run_here(*words, "--reference", "reference")
    assert done.code == 0, done
    scores = dict(line.split(": ") for line in done.out.splitlines() if ": " in line)
    assert scores["rp/reference"].startswith("1.0000  95 % interval 0.5655-1.0000, n = 5")
    assert scores["mae/reference"].startswith("1.0000")
    assert 0 <= float(scores["gl"].split()[0]) <= 1


def test_validate_on_images_held_out(trained: Path) -> None:
    assert "type --data NAME --data.holdout N" in run_here("validate", "--ckpt_path", "runs/tiny").mistake
    done = run_here("validate", "--ckpt_path", "runs/tiny", "--data", "Digits", "--data.holdout", "16")
    assert done.code == 0, done
    assert float(done.out.split("val/loss: ")[1].split()[0]) > 0


def test_a_model_without_training_is_drawn_from_directly(trained: Path) -> None:
    config = {
        "class_path": "Exact",
        "init_args": {
            "denoiser": {"class_path": "EmpiricalDenoiser", "init_args": {"images": "Digits", "kernel": "EDM"}},
            "sampler": {"class_path": "Heun", "init_args": {"steps": 4}},
        },
    }
    Path("optimum.yaml").write_text(yaml.safe_dump({"model": config}))
    words = ("predict", "--config", "optimum.yaml", "--model.denoiser.images.subset", "5", "--seeds", "0-1")
    done = run_here(*words)
    assert done.code == 0, done
    assert len(Bank.open("runs/optimum/banks/unconditional_0-1")) == 2
    assert "Exact has nothing to train" in run_here("fit", "--config", "optimum.yaml").mistake


def test_compare_draws_from_runs_and_names_them(trained: Path) -> None:
    run_here(*FIT, "--model.seed", "2", "--name", "other")
    done = run_here(
        "compare", "runs/tiny", "runs/other", "--seeds", "0-5", "--descriptor", "Pixels", "--output", "both"
    )
    assert done.code == 0, done
    record = json.loads(Path("both/comparison.json").read_text())
    assert [system["name"] for system in record["systems"]] == ["tiny", "other"]
    assert record["n"] == 6
    assert len(record["memorization"]) == 2
    assert Path("both/rp.csv").is_file()
    words = (
        "--names",
        "a",
        "b",
        "--train",
        "Digits",
        "--train.subset",
        "7",
        "--threshold",
        "0.4",
        "--descriptor",
        "Pixels",
    )
    named = run_here("compare", "runs/tiny/banks/unconditional_0-5", "runs/other", *words, "--output", "named")
    assert named.code == 0, named
    record = json.loads(Path("named/comparison.json").read_text())
    assert [row["train_size"] for row in record["memorization"]] == [7, 7]
    assert record["threshold"] == 0.4


def test_differences_stop_at_another_class() -> None:
    there = {
        "group": "modules",
        "name": "M",
        "args": {"net": {"group": "networks", "name": "A", "args": {"w": 1}}, "x": 2},
    }
    here = {"class_path": "M", "init_args": {"net": {"class_path": "B", "init_args": {"v": 3}}, "x": 2}}
    assert records.differences(there, here, "model") == {"model.net": ("A", "B")}
    here["init_args"]["net"] = {"class_path": "A", "init_args": {"w": 4}}
    assert records.differences(there, here, "model") == {"model.net.w": (1, 4)}


def test_ctrl_c_is_one_line_and_the_run_can_go_on(trained: Path) -> None:
    words = [*FIT, "--trainer.max_steps", "1000000", "--trainer.callbacks", "RunCheckpoint"]
    words += ["--trainer.callbacks.every_n_steps", "20", "--output", "stopped"]
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from repro.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not Path("stopped/checkpoints/last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, (out, err)
    assert err == "repro: interrupted; go on with: repro fit --ckpt_path stopped\n"
    assert read_checkpoint("stopped")["global_step"] > 0


def test_two_processes_share_one_run(trained: Path) -> None:
    words = [*FIT, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--name", "pair"]
    script = Path("entry.py")
    script.write_text("import sys\nfrom repro.cli.main import main\nsys.exit(main())\n")
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    assert [path.name for path in Path("runs").glob("pair*")] == ["pair"]
    assert read_checkpoint("runs/pair")["repro"]["training"]["images_seen"] == 3 * 8


def test_going_on_with_a_run_keeps_what_csv_logger_wrote(workplace: Path) -> None:
    words = (*FIT, "--trainer.logger", "CSVLogger", "--trainer.log_every_n_steps", "1", "--name", "logged")
    first = run_here(*words)
    assert first.code == 0
    folder = workplace / "runs" / "logged"
    assert f"curves: {Path('runs/logged/metrics.csv')}" in first.out
    assert "tensorboard" not in first.out
    before = (folder / "metrics.csv").read_text()
    assert run_here(*words, "--ckpt_path", "runs/logged", "--trainer.max_steps", "5").code == 0
    assert (folder / "metrics-1.csv").read_text() == before
    steps = [line.split(",")[before.splitlines()[0].split(",").index("step")] for line in before.splitlines()[1:]]
    assert steps[-1] == "2"
    with open(folder / "metrics.csv", newline="") as file:
        assert {int(row["step"]) for row in csv.DictReader(file)} == {3, 4}


def test_parts_of_a_killed_process_are_swept_where_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"whole")
    parts = [tmp_path / "run" / ".run.json.7b0910.part", tmp_path / "run" / "checkpoints" / ".last.ckpt.7b0910.part"]
    for part in parts:
        part.write_bytes(b"half")
    with pytest.raises(UserError, match="is not empty"):
        claim("run", str(tmp_path / "run"))
    assert not any(part.exists() for part in parts)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == b"whole"


def test_parts_in_a_folder_that_is_no_run_are_somebody_elses(tmp_path: Path) -> None:
    part = tmp_path / "home" / ".film.mkv.part"
    part.parent.mkdir()
    part.write_bytes(b"half")
    (tmp_path / "home" / "notes.txt").touch()
    with pytest.raises(UserError, match="is not empty"):
        claim("run", str(tmp_path / "home"))
    assert part.exists()
