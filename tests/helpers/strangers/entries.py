"""Entries of the catalog that several tests add."""

from m2pt import catalog

ONE_HOT = catalog.Task(
    kind="finetune",
    labels="class",
    metrics=("errors",),
    task="strangers.one_hot:OneHotRegression",
    recipe="strangers.one_hot:OneHotRecipe",
)
