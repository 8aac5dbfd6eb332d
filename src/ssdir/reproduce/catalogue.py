"""All experiments by name, in the order of the report."""

from __future__ import annotations

from collections.abc import Mapping

from ssdir.reports.sections import SHARP
from ssdir.reproduce.experiments import Comparison, CostTable, Experiment, Table1, Table2
from ssdir.reproduce.figures import Pictures, Surface, embedding_png, scenes_png

_ATTRIBUTES = ("shape", "colour", "material", "size")

EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Table1(
        "Table 1: how the methods differ",
        "The paper's criteria, and what can be measured of them. GlimpseVAE is the paper's “basic VAE”: the same "
        "detector as SSDIR's, and an encoder of crops. SPAIR and SPACE encode every cell of a grid, so their "
        "time does not depend on the number of objects. Areas are counted in images of one size for all methods.",
    ),
    "table2": Table2(
        "Table 2: the digit, predicted from its embedding",
        "A linear classifier on frozen embeddings of test objects. Our first figures are conditional: of detected "
        "objects, at an IoU of one half, one to one; the last column is the share that is detected. End to end, "
        "an object that is not detected is an error. The paper labels an embedding by the true object that its "
        "box overlaps most, however little, which punishes boxes around half a digit: that is a group of its own. "
        "It does not say whether its detector knew the digits' classes. A class-aware detector has learned them "
        "from labels, so its features know them before any representation is learned: see the floors.",
    ),
    "figure2": Pictures(
        "Fig. 2: scenes, and single objects",
        "Test images: the input, the detected boxes, the reconstruction from the embeddings (by SPACE over its "
        "inferred background), and single objects.",
        name="figure2",
        render=scenes_png,
        alt="Input, boxes, reconstruction and single objects of test images",
        scale=240 / 180,
        wide=True,
    ),
    "figure3": Pictures(
        "Fig. 3: map of the embeddings",
        "Embeddings of detected test objects, projected to the plane by t-SNE; colours are the true categories.",
        name="figure3",
        render=embedding_png,
        alt="Map of the objects' embeddings, coloured by category",
        scale=SHARP,
        wide=False,
    ),
    "figure4": Surface(
        "Fig. 4: error by the generation of the data",
        "SSDIR on data sets of digits of other sizes, on other grids. The paper's errors are larger for larger "
        "digits and for more of them, in a picture without numbers; its authors' notebook has the numbers, of 54 "
        "data sets: three smallest sizes, three largest ones, six sets of grids.",
    ),
    "scale": Comparison(
        "Scale invariance",
        "The claim of the paper's title, which it does not measure. The same unseen digit is shown at sizes from "
        "an eighth to half of the image; and classifiers are trained on objects of one size, tested on others.",
        metrics=(
            "scale/drift",
            "scale/retrieval_at_1",
            "scale/pooled_features/retrieval_at_1",
            "scale/small_to_large/accuracy",
            "scale/large_to_small/accuracy",
            *(f"scale/probe/accuracy_{size}" for size in ("small", "medium", "large")),
        ),
    ),
    "depth": Comparison(
        "Order of depth",
        "Pairs of overlapping objects whose order is known.",
        metrics=("depth/order_accuracy", "depth/lower_edge_accuracy", "depth/pairs"),
    ),
    "masks": Comparison(
        "Segmentation by opacity",
        "Masks from each object's opacity, against true masks.",
        metrics=("masks/fg_ari", "masks/miou", "masks/mbo"),
    ),
    "properties": Comparison(
        "Probes of attributes",
        "A linear classifier for each attribute, on embeddings of detected objects; and the error of the images "
        "that are decoded from them.",
        metrics=(
            *(f"properties/{name}/accuracy" for name in _ATTRIBUTES),
            *(f"properties/{name}/accuracy_end_to_end" for name in _ATTRIBUTES),
            "reconstruction/mse",
        ),
    ),
    "faces": Comparison(
        "Faces in photographs",
        "Photographs of WIDER FACE, of other kinds of events than those to learn from; all nets from scratch.",
        metrics=("detection/ap50", "detection/recall", "reconstruction/mse"),
    ),
    "voc": Comparison(
        "Photographs of everyday things",
        "Photographs of Pascal VOC, other ones than those to learn from and those on which the recipe was chosen. "
        "The backbone is pretrained on ImageNet; detectors are supervised with boxes alone.",
        metrics=(
            "detection/ap50",
            "detection/ap",
            "detection/recall",
            "probe/accuracy",
            "probe/accuracy_end_to_end",
            "probe/knn_accuracy",
            *(
                f"probe/{part}/accuracy"
                for part in ("true_boxes", "pooled_features", "random_encoder", "raw_pixels")
            ),
            "reconstruction/mse",
        ),
    ),
    "own-scenes": Comparison(
        "SPAIR and SPACE on scenes that they are made for",
        "Whether these implementations learn at all, where their assumptions hold: objects of one size that do "
        "not overlap, on black.",
        metrics=(
            "detection/ap50",
            "detection/count_error",
            "probe/accuracy",
            "probe/raw_pixels/accuracy",
        ),
    ),
    "clusters": Comparison(
        "Clusters of embeddings",
        "k-means on the embeddings, with as many clusters as categories; and the classes of a mixture prior.",
        metrics=(
            "clusters/nmi",
            "clusters/ari",
            "clusters/accuracy",
            "clusters/mixture/nmi",
            "clusters/mixture/accuracy",
        ),
    ),
    "redundancy": Comparison(
        "Embeddings per object",
        "The paper's model returns several reconstructions of one object; users want one embedding for each.",
        metrics=(
            "detection/latents_per_object",
            "detection/count_error",
            "detection/recall",
            "detection/precision",
            "detection/ap50",
        ),
    ),
    "uncertainty": Comparison(
        "Signals of a wrong class: which objects the probe takes for another category",
        "How well each signal ranks objects that the linear classifier takes for another category above the "
        "others (AUROC: 0.5 is chance, 1 is perfect). Where the row of σ is missing, it is a constant of these "
        "models.",
        metrics=tuple(f"uncertainty/{name}_auroc" for name in ("sigma", "reconstruction", "score")),
    ),
    "cost": CostTable(
        "Time and memory",
        "Untrained models at the plan's sizes, by the number of objects in each image. Memory is what a training "
        "step adds to the peak of a fresh process.",
    ),
    "classes": Comparison(
        "Class-aware detectors",
        "What embeddings know of the classes that their detector was supervised with. Models whose detector has "
        "the same recipe share it. Embeddings may read what the refiner saw of each box, and may be supervised "
        "with the classes that it predicts: both leak its labels into them on purpose.",
        metrics=(
            "probe/labels/accuracy",
            "probe/accuracy",
            "probe/accuracy_end_to_end",
            "probe/knn_accuracy",
            "clusters/accuracy",
            "scale/retrieval_at_1",
            "reconstruction/mse",
        ),
    ),
    "ablation": Comparison(
        "Ablation of the departures from the paper",
        "Models on one and the same detector, each without one of our departures; the last has the paper's parts.",
        metrics=(
            "probe/accuracy",
            "probe/accuracy_end_to_end",
            "scale/retrieval_at_1",
            "reconstruction/mse",
            "reconstruction/object_mse",
            "detection/latents_per_object",
        ),
    ),
}
