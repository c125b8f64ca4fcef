"""Classification tasks with a recipe's defaults for what is not given."""

from m2pt.config.recipes import Mix
from m2pt.tasks.classification import Classification, ClassificationLoss


def classification(num_classes, **mix):
    return Classification(num_classes, **Mix(**mix).model_dump())


def classification_loss(num_classes, **mix):
    return ClassificationLoss(num_classes, **Mix(**mix).model_dump())
