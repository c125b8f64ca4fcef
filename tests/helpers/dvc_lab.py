"""A small repository whose trainings are done, and how tests call git, DVC and Snakemake in it."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from m2pt.commands import main
from m2pt.plan.plan import Plan

REPOSITORY = Path(__file__).parents[2]
CONFIG = "small.yaml"
FINALS = ("encoder.safetensors", "encoder-epoch1.safetensors", "metrics.jsonl", "run.json", "SHA256SUMS")

TABLE = """\
title: Small table
caption: One finetuning with an auxiliary and the same one after its first epoch.
columns:
  - name: tune_acc
    group: ImageNet
    title: tune acc (%)
    metric: top1
    task: classification
    dataset: imagenet
    mode: tune
rows:
  - method: M2PT
    setting: pretrained
    run: {target_init: image, pathway: {auxiliaries: [pointcloud, pointcloud_early]}}
    columns: [tune_acc]
"""
FIGURE = """\
title: Small figure
caption: A training curve.
plot: {kind: training_curves, curves: {M2PT: "small_table:M2PT:tune_acc"}}
"""


class Folder:
    """A clone in which commands run, apart from this machine's settings and credentials."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = kept | {
            **{f"GIT_{role}_NAME": "tester" for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": "tester@example.org" for role in ("AUTHOR", "COMMITTER")},
            **{
                f"DVC_{kind}_DIR": str(home / kind)
                for kind in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")
            },
            **{"DVC_NO_ANALYTICS": "1", "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"},
            **{"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"},
            **{"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        }

    def __call__(self, *command: str, code: int | None = 0, **environment: str) -> str:
        """Run a command and return all that it says; its exit code must be `code`, unless that is None."""
        run = subprocess.run(
            command, cwd=self.path, env=self._environment | environment, capture_output=True, text=True
        )
        assert code is None or run.returncode == code, run.stdout + run.stderr
        return run.stdout + run.stderr

    def snakemake(self, *arguments: str, code: int = 0) -> str:
        return self("snakemake", *arguments, "--cores", "2", "--configfile", CONFIG, code=code)

    def commit(self, message: str) -> None:
        self("git", "add", "--all")
        self("git", "commit", "--quiet", "--message", message)

    def take_from_dvc(self, *encoders: str) -> None:
        config = yaml.safe_load((self.path / CONFIG).read_text())
        for name in encoders:
            config["encoders"][name]["source"] = "dvc"
        (self.path / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))

    def set_remote(self, name: str, **options: str) -> None:
        """Write what `dvc remote add --local` and `dvc remote modify --local` would, without starting DVC."""
        lines = [f"['remote \"{name}\"']", *(f"    {key} = {value}" for key, value in options.items())]
        (self.path / ".dvc/config.local").write_text("\n".join(lines) + "\n")

    def clone(self, name: str, *, pull: str = "") -> "Folder":
        """A clone beside this folder, with what `pull` names pulled."""
        other = Folder(self.path.parent / name, self.path.parent)
        self("git", "clone", "--quiet", ".", str(other.path))
        if pull:
            other("dvc", "pull", pull)
        return other

    @property
    def run(self) -> Path:
        """Folder of the only finetuned run, relative to `results/runs` or `checkpoints/models`."""
        return next((self.path / "checkpoints/models").glob("*/seed0")).relative_to(
            self.path / "checkpoints/models"
        )

    def files(self, folder: str) -> set[str]:
        root = self.path / folder
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def make_lab(folder: Path) -> Folder:
    """Copy the workflow, with dvc.yaml for the small config, and train everything in this process."""
    lab = Folder(folder / "lab", folder)
    for name in ("workflow", "profiles", "tests/tiny", "config", ".dvc/plots"):
        shutil.copytree(REPOSITORY / name, lab.path / name)
    for name in (
        "Snakefile",
        "environment.yml",
        ".gitignore",
        ".dvcignore",
        ".dvc/config",
        ".dvc/.gitignore",
    ):
        shutil.copy(REPOSITORY / name, lab.path / name)
    config = yaml.safe_load((lab.path / "tests/tiny/config.yaml").read_text())
    config |= {"checkpoints": "checkpoints", "tables": ["small_table.yaml"], "figures": ["small_figure.yaml"]}
    (lab.path / CONFIG).write_text(yaml.safe_dump(config | {"claims": None}, sort_keys=False))
    (lab.path / "small_table.yaml").write_text(TABLE)
    (lab.path / "small_figure.yaml").write_text(FIGURE)
    stages = (REPOSITORY / "dvc.yaml").read_text()
    for shipped, ours in {
        "config: config/config.yaml": f"config: {CONFIG}",
        "config/config.yaml:checkpoints": f"{CONFIG}:checkpoints",
        "recipes: config/recipes/mini": "recipes: tests/tiny/recipes",
    }.items():
        assert stages.count(shipped) == 1
        stages = stages.replace(shipped, ours)
    plots = yaml.safe_dump({"plots": [{"${checkpoints}/tables/small_figure.csv": _curves(stages)}]})
    (lab.path / "dvc.yaml").write_text(stages[: stages.index("plots:")] + plots)
    lab("git", "init", "--quiet", "--initial-branch", "main")
    lab.commit("A small config")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(lab.path)
        train(["data build imagenet", "data build shapenet55", "pretrain image", "pretrain pointcloud"])
        train(["import pointcloud_early", *from_encoders_to_table()])
    return lab


def _curves(stages: str) -> dict[str, str]:
    """How the shipped dvc.yaml draws a figure of training curves."""
    return next(iter(yaml.safe_load(stages)["plots"][0].values()))


def train(commands: Iterable[str]) -> None:
    """Run m2pt commands in this process, which has torch loaded, in the current folder."""
    for command in commands:
        words = command.split()
        assert main(words + ([] if words[0] == "merge" else ["--config", CONFIG])) == 0, command


def from_encoders_to_table() -> list[str]:
    """The commands that make the table and the figure of the config in the current folder."""
    run = next(iter(Plan.load(Path(CONFIG)).runs))
    folder = f"results/runs/{run}/seed0"
    return [
        f"finetune {run}",
        f"merge {folder}/attached.safetensors {folder}/merged.safetensors",
        f"evaluate {run}",
        "tabulate small_table",
        "plot small_figure",
    ]
