"""The dataset layouts of the catalog."""

from m2pt.catalog.entries import Layout, Published

CREMAD_FRAMES = "Image-01-FPS"

_PARTNET = {  # classes at the finest level, and shapes in the training split
    "Bed-3": (15, 133),
    "Bottle-3": (9, 315),
    "Chair-3": (39, 4_489),
    "Clock-3": (11, 406),
    "Dishwasher-3": (7, 111),
    "Display-3": (4, 633),
    "Door-3": (5, 149),
    "Earphone-3": (10, 147),
    "Faucet-3": (12, 435),
    "Knife-3": (10, 221),
    "Lamp-3": (41, 1_554),
    "Microwave-3": (6, 133),
    "Refrigerator-3": (7, 136),
    "StorageFurniture-3": (24, 1_588),
    "Table-3": (51, 5_707),
    "TrashCan-3": (11, 221),
    "Vase-3": (6, 741),
}

# Many of AudioSet's and Kinetics' videos have been deleted since their publication: yours will be smaller.
LAYOUTS: dict[str, Layout] = {
    "ade20k": Layout(
        modalities=("image",),
        labels="pixels",
        reader="m2pt.datasets.ade20k",
        miniature="m2pt.datasets.miniature.ade20k",
        archives={"ADEChallengeData2016.zip": ""},
        augmentation="m2pt.datasets.augmentations:SegmentationAugmentation",
        num_classes=150,
        skippable=True,
        published={"ade20k": Published(20_210, "ADE20K, SceneParsing benchmark, training set")},
    ),
    "audioset": Layout(
        modalities=("audio",),
        labels="classes",
        reader="m2pt.datasets.audioset",
        miniature="m2pt.datasets.miniature.audioset",
        preparation="m2pt.datasets.preparation.audioset",
        preparation_options=("num_classes", "annotations", "check", "unbalanced", "statistics"),
        augmentation="m2pt.datasets.augmentations:SpectrogramAugmentation",
        pretraining_augmentation="m2pt.datasets.augmentations:WaveformAugmentation",
        num_classes=527,
        skippable=True,
        published={
            "audioset": Published(22_176, "AudioSet's download page, balanced train"),
            "audioset2m": Published(
                2_042_985 + 22_176, "AudioSet's download page, unbalanced and balanced train"
            ),
        },
    ),
    "avmnist": Layout(
        modalities=("audio", "image"),
        labels="class",
        reader="m2pt.datasets.avmnist",
        miniature="m2pt.datasets.miniature.avmnist",
        augmentation="m2pt.datasets.augmentations:NoAugmentation",
        input="m2pt.datasets.multimodal_settings:AvMnistInput",
        transposed=("audio",),
        manifest_has_counts=False,  # of the epochs of a recipe, whose share is held out
        held_out="held_out",
        num_classes=10,
    ),
    "coco": Layout(
        modalities=("image",),
        labels="instances",
        reader="m2pt.datasets.coco",
        miniature="m2pt.datasets.miniature.coco",
        archives={
            "train2017.zip": "train2017",
            "val2017.zip": "val2017",
            "annotations_trainval2017.zip": "annotations",
        },
        augmentation="m2pt.datasets.augmentations:DetectionAugmentation",
        num_classes=80,
        skippable=True,
        published={"coco": Published(118_287, "COCO train2017, images")},
        manifest_has_counts=False,  # images without an instance are counted, but not trained on
    ),
    "cremad": Layout(
        modalities=("audio", "image"),
        labels="class",
        reader="m2pt.datasets.cremad",
        miniature="m2pt.datasets.miniature.cremad",
        augmentation="m2pt.datasets.augmentations:FrameAugmentation",
        input="m2pt.datasets.multimodal_settings:CremaDInput",
        transposed=("audio",),
        manifest_has_counts=False,  # of the epochs of a recipe, whose share is held out
        held_out="held_out",
        num_classes=6,
        frames=CREMAD_FRAMES,
        published={"cremad": Published(6_698, "CREMA-D, AGM's train.csv without what is held out")},
    ),
    "imagenet": Layout(
        modalities=("image",),
        labels="class",
        reader="m2pt.datasets.imagenet",
        miniature="m2pt.datasets.miniature.imagenet",
        preparation="m2pt.datasets.preparation.imagenet",
        shards=True,
        augmentation="m2pt.datasets.augmentations:ImageAugmentation",
        num_classes=1000,
        skippable=True,
        published={"imagenet": Published(1_281_167, "ImageNet-1k, training set")},
    ),
    "kinetics": Layout(
        modalities=("video",),
        labels="class",
        reader="m2pt.datasets.kinetics",
        miniature="m2pt.datasets.miniature.kinetics",
        preparation="m2pt.datasets.preparation.kinetics",
        preparation_options=("num_classes", "annotations", "check"),
        augmentation="m2pt.datasets.augmentations:ClipAugmentation",
        pretraining_augmentation="m2pt.datasets.augmentations:ClipCropAugmentation",
        evaluation="m2pt.datasets.augmentations:MultiView",
        num_classes=400,
        skippable=True,
        published={
            "kinetics": Published(240_436, "Kinetics-400 as mmaction2 has it"),
            "kinetics700": Published(542_357, "Kinetics-700 as mmaction2 has it", num_classes=700),
        },
    ),
    "partnet": Layout(
        modalities=("pointcloud",),
        labels="points",
        reader="m2pt.datasets.partnet",
        miniature="m2pt.datasets.miniature.partnet",
        archives={"sem_seg_h5.zip": "sem_seg_h5"},
        augmentation="m2pt.datasets.augmentations:ShapeAugmentation",
        num_classes={subset: classes for subset, (classes, _) in _PARTNET.items()},
        subsets=True,
        published={
            f"partnet/{subset}": Published(
                shapes, "PartNet (Mo et al. 2019), semantic segmentation, training split"
            )
            for subset, (_, shapes) in _PARTNET.items()
        },
        manifest_has_counts=False,  # the count is of all subsets together
    ),
    "shapenet55": Layout(
        modalities=("pointcloud",),
        labels="class",
        reader="m2pt.datasets.shapenet55",
        miniature="m2pt.datasets.miniature.shapenet55",
        augmentation="m2pt.datasets.augmentations:PointcloudAugmentation",
        num_classes=55,
        skippable=True,
        published={"shapenet55": Published(41_952, "ShapeNet-55 (Point-BERT), train.txt")},
    ),
    "shapenetpart": Layout(
        modalities=("pointcloud",),
        labels="parts",
        reader="m2pt.datasets.shapenetpart",
        miniature="m2pt.datasets.miniature.shapenetpart",
        archives={"shapenetcore_partanno_segmentation_benchmark_v0_normal.zip": ""},
        augmentation="m2pt.datasets.augmentations:ShapeAugmentation",
        pretraining_augmentation="m2pt.datasets.augmentations:PointcloudAugmentation",
        num_classes=50,
        skippable=True,
        published={"shapenetpart": Published(12_137 + 1_870, "ShapeNetPart, train and val lists")},
    ),
    "text": Layout(
        modalities=("text",),
        labels=None,
        reader="m2pt.datasets.text",
        miniature="m2pt.datasets.miniature.text",
        augmentation="m2pt.datasets.augmentations:TextAugmentation",
        num_classes=256,
        window="length",  # bytes are counted
    ),
    "urfunny": Layout(
        modalities=("text", "audio", "video"),
        labels="class",
        reader="m2pt.datasets.urfunny",
        miniature="m2pt.datasets.miniature.urfunny",
        augmentation="m2pt.datasets.augmentations:NoAugmentation",
        input="m2pt.datasets.multimodal_settings:UrFunnyInput",
        num_classes=2,
    ),
}
