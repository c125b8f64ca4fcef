"""Tests mirror the package: where the tests of a module are.

`m2pt/a/b.py` is tested by `tests/a/test_b.py`, by `tests/a/test_b_TOPIC.py` or, if they are many, by the
files of `tests/a/b/`.
"""

from pathlib import Path

TESTS, PACKAGE = Path("tests"), Path("m2pt")

OTHER_FOLDERS = {"workflow": "the Snakefile and its rules", "slurm": "the workflow on a Slurm"}
OTHER_TESTS = {
    "test_benchmarks.py": "benchmarks/gpu.py",
    "test_clone_guard.py": "tests/clone_guard",
    "test_environment_files.py": "constraints.txt and environment.yml",
    "test_makefile.py": "Makefile",
    "test_mirror.py": "tests",
    "test_package.py": "the package as a whole",
    "test_packaging.py": "pyproject.toml",
    "test_readme.py": "README.md and docs",
    "catalog/additions/test_auxiliary.py": "weights of a modality without an entry",
    "catalog/additions/test_kind.py": "a new kind of run, from catalog to table",
    "catalog/additions/test_layout.py": "a new layout, from catalog to table",
    "catalog/additions/test_method.py": "a new method of joint training: what its entry lacks",
    "catalog/additions/test_modality.py": "a new modality, from catalog to table",
    "catalog/additions/test_pairs.py": "a new kind of run on pairs of two modalities",
    "catalog/additions/test_task.py": "a new task, from catalog to table",
    "commands/test_averaged.py": "all commands, of a recipe with ema",
    "commands/test_bad_input.py": "every command on wrong input",
    "commands/test_logs.py": "logs of all commands",
    "config/test_paper_config.py": "config/paper.yaml",
    "config/test_schema.py": "tools/config_schema.py",
    "datasets/test_image_layouts.py": "the layouts of images, damaged",
    "datasets/test_memory.py": "memory of the readers",
    "datasets/test_signals.py": "the layouts of sounds, point clouds and text, damaged",
    "datasets/miniature/test_images.py": "all miniatures of images",
    "datasets/miniature/test_multimodal.py": "the miniatures with several modalities",
    "datasets/miniature/test_signals.py": "the other miniatures of one modality",
    "formats/test_damaged_files.py": "every reader of a file that a run leaves",
    "reporting/test_damaged_results.py": "every command on damaged results",
    "reporting/figures/test_captions.py": "captions of all kinds of figures",
    "tracking/test_mlflow_ui.py": "make mlflow-ui",
    "training/test_damaged_states.py": "resuming from damaged state",
    "training/test_processes.py": "a training in several processes, stopped and resumed",
}
"""Tests of something other than one module: what they test."""

TESTED_IN = {
    "agm/test_forward_check.py": "agm/calls agm/traceless",
    "catalog/test_catalog.py": "catalog/layouts",
    "commands/test_check.py": "ops/check",
    "checkpoints/test_conversion.py": "checkpoints/dialects",
    "commands/test_data.py": "ops/preparation",
    "commands/test_import_.py": "ops/import_encoder ops/convert_checkpoint",
    "commands/test_launch.py": "ops/launch",
    "commands/test_rehearse.py": "ops/rehearse",
    "commands/test_show.py": "ops/describe_cell",
    "commands/test_bad_input.py": "commands/pretrain commands/finetune commands/transfer errors ranges",
    "config/test_config.py": "config/dataset config/architecture config/names",
    "datasets/kinetics/test_video_augmentation.py": "datasets/video_augmentation",
    "datasets/kinetics/test_video_files.py": "datasets/video datasets/video_files",
    "datasets/kinetics/test_video_views.py": "datasets/video_views",
    "datasets/miniature/test_images.py": "datasets/miniature/ade20k datasets/miniature/coco "
    "datasets/miniature/imagenet datasets/miniature/pictures datasets/miniature/scenes "
    "datasets/miniature/staging",
    "datasets/miniature/test_multimodal.py": "datasets/miniature/avmnist datasets/miniature/cremad "
    "datasets/miniature/spectra datasets/miniature/urfunny",
    "datasets/miniature/test_signals.py": "datasets/miniature/audioset datasets/miniature/kinetics "
    "datasets/miniature/objects datasets/miniature/partnet datasets/miniature/shapenet55 "
    "datasets/miniature/shapenetpart datasets/miniature/shapes datasets/miniature/soundfont "
    "datasets/miniature/text",
    "datasets/preparation/test_audioset.py": "datasets/preparation/spectrograms",
    "datasets/preparation/test_imagenet.py": "datasets/preparation/devkit",
    "datasets/preparation/test_archives.py": "datasets/preparation/unpacking",
    "datasets/preparation/test_kinetics.py": "datasets/preparation/clips datasets/preparation/lists "
    "datasets/preparation/splits",
    "datasets/test_ade20k.py": "datasets/framing",
    "datasets/test_audioset.py": "datasets/audio_augmentation datasets/fbank",
    "datasets/test_augmentations.py": "datasets/base",
    "datasets/test_signals.py": "datasets/pointclouds",
    "datasets/test_avmnist.py": "datasets/arrays",
    "datasets/test_sound.py": "datasets/mpeg datasets/sound_containers",
    "formats/test_damaged_files.py": "inputs",
    "formats/test_weights.py": "formats/weight_files",
    "modalities/test_image.py": "modalities/patches modalities/positions modalities/tokenizer",
    "models/test_classifier.py": "modalities/settings models/exchange models/transformer",
    "models/test_convnext.py": "models/bodies",
    "models/test_feature_pyramid.py": "models/mask_rcnn models/upernet",
    "models/test_masked_autoencoder.py": "models/decoders",
    "models/test_masked_language_model.py": "modalities/text",
    "ops/test_cleanup.py": "commands/clean",
    "ops/test_export.py": "commands/export",
    "ops/test_plan_report.py": "ops/estimate",
    "ops/test_step_costs.py": "ops/measure",
    "pathway/test_fitting.py": "pathway/layouts",
    "pathway/test_layers.py": "pathway/forwards pathway/terms",
    "pathway/test_layers_gradients.py": "pathway/summing",
    "pathway/test_layers_fsdp.py": "pathway/sharding",
    "pathway/test_matching.py": "pathway/roles",
    "pathway/test_saving.py": "pathway/names",
    "plan/test_jobs.py": "plan/sources",
    "plan/test_plan.py": "plan/resolution plan/runs plan/specs",
    "reporting/figures/test_render.py": "commands/plot",
    "reporting/test_claims.py": "commands/summarize config/cell_names config/claims plan/claims",
    "reporting/test_tables.py": "commands/tabulate reporting/notes",
    "tasks/test_evaluation.py": "training/loading",
    "tasks/test_part_segmentation.py": "tasks/point_segmentation",
    "test_session.py": "evaluation provenance",
    "tracking/test_follow.py": "commands/track",
    "tracking/tracker/test_cells.py": "plan/snapshot",
    "tracking/tracker/test_points.py": "tracking/cursor tracking/mlflow_store",
    "tracking/tracker/test_runs.py": "tracking/local_run",
    "training/test_checkpoint.py": "formats/checksummed",
    "training/test_processes.py": "training/batch_statistics training/signals training/stopping",
    "workflow/test_workflow.py": "commands/evaluate commands/merge",
}
"""Modules without a test file of their own, by the file that tests them."""

MODULES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__main__" and (path.stem != "__init__" or path.parent == PACKAGE / "catalog")
} - {"__init__"}


def module_of(test: Path) -> str | None:
    """Return the module or package that a test file tests by its name, None if there is none."""
    subject = test.with_name(test.stem.removeprefix("test_")).as_posix()
    package = f"{test.parent.as_posix()}/__init__"
    if test.parent.as_posix() in MODULES:
        return test.parent.as_posix()
    if test.stem == f"test_{test.parent.name}" and package in MODULES:
        return package
    while subject not in MODULES and "_" in subject.rpartition("/")[2]:
        subject = subject.rpartition("_")[0]
    return subject if subject in MODULES else None


def files_of_tests() -> list[Path]:
    """Return all test files, relative to the folder of tests."""
    return sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))


def test_every_test_file_is_named_after_a_module_or_listed() -> None:
    files = [path for path in files_of_tests() if path.parts[0] not in OTHER_FOLDERS]
    others = {path.as_posix() for path in files if module_of(path) is None}
    assert others == set(OTHER_TESTS)
    assert all((TESTS / folder).is_dir() for folder in OTHER_FOLDERS)


def test_every_module_has_a_test_file_or_is_listed() -> None:
    files = files_of_tests()
    listed = [module for modules in TESTED_IN.values() for module in modules.split()]
    assert sorted(listed) == sorted(MODULES - {module_of(path) for path in files})
    assert set(TESTED_IN) <= {path.as_posix() for path in files}
