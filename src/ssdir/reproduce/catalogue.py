"""All experiments by name, in the order of the report."""

from __future__ import annotations

from collections.abc import Mapping

from ssdir.reports.sections import SHARP
from ssdir.reproduce.experiments import Comparison, CostTable, Experiment, Table1, Table2
from ssdir.reproduce.figures import Pictures, Surface, draw_embedding, draw_scenes

EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Table1(
        "Table 1: how the methods differ",
        "The paper's criteria, and what can be measured of them. GlimpseVAE is the paper's “basic VAE”: the same "
        "detector as SSDIR's, and an encoder of crops. SPAIR and SPACE describe every cell of a grid, so their "
        "cost does not depend on the number of objects. Areas are counted in images of one size for all methods.",
    ),
    "table2": Table2(
        "Table 2: reading the digit off its code",
        "A linear classifier on frozen codes of test objects. Our first figures are conditional: of objects that "
        "were found, at an IoU of one half, one to one; what share that is, the last column tells. End to end, "
        "one that was not found is an error. The paper labels a code by the true object that its box overlaps "
        "most, however little, which punishes boxes around half a digit: that is a group of its own. It does not "
        "say whether its detector knew the digits' classes. A class-aware detector has learned them from labels, "
        "so its features know them before any representation is learned: see the floors.",
    ),
    "probes": Table2(
        "Table 2 again, by probes that learn from all images",
        "The paper's classifier learned from all training images. Those of Table 2 above learn from a part of "
        "them, so that every method can be measured in hours. Here they learn from all that detector and codes "
        "learned from, as do its floors.",
    ),
    "figure2": Pictures(
        "Fig. 2: scenes, and single objects",
        "Test images: the input, what was found, the reconstruction from the codes (by SPACE over the background "
        "that it sees), and single objects.",
        name="figure2",
        draw=draw_scenes,
        alt="Input, boxes, reconstruction and single objects of test images",
        scale=240 / 180,
        wide=True,
    ),
    "figure3": Pictures(
        "Fig. 3: how the codes of objects lie",
        "Codes of test objects that were found, laid out in the plane by t-SNE; colours are the true categories.",
        name="figure3",
        draw=draw_embedding,
        alt="Map of the objects' codes, coloured by category",
        scale=SHARP,
        wide=False,
    ),
    "figure4": Surface(
        "Fig. 4: which data are hard",
        "SSDIR on data sets of digits of other sizes, on other grids. The paper finds larger errors for larger "
        "digits and for more of them, and prints no figures. It has 45 combinations: three smallest sizes, three "
        "largest, five sets of grids.",
    ),
    "scale": Comparison(
        "Is a code the same at any size?",
        "The claim of the paper's title, which it does not measure. The same unseen digit is drawn at sizes from "
        "an eighth to half of the image; and classifiers are trained on objects of one size, tested on others.",
        metrics=(
            "scale/drift",
            "scale/retrieval_at_1",
            "scale/pooled_features/retrieval_at_1",
            "scale/small_to_large/accuracy",
            "scale/large_to_small/accuracy",
            "scale/probe/accuracy_small",
            "scale/probe/accuracy_medium",
            "scale/probe/accuracy_large",
        ),
    ),
    "depth": Comparison(
        "Which of two objects is in front?",
        "Pairs of overlapping objects whose order is known.",
        metrics=("depth/order_accuracy", "depth/pairs"),
    ),
    "masks": Comparison(
        "Whose is each pixel?",
        "Masks from each object's opacity, against true masks.",
        metrics=("masks/fg_ari", "masks/miou", "masks/mbo"),
    ),
    "properties": Comparison(
        "What do codes tell of an object's looks?",
        "A linear classifier for each attribute, on codes of objects that were found.",
        metrics=(
            "properties/shape/accuracy",
            "properties/colour/accuracy",
            "properties/material/accuracy",
            "properties/size/accuracy",
            "properties/shape/accuracy_end_to_end",
            "properties/colour/accuracy_end_to_end",
            "properties/material/accuracy_end_to_end",
            "properties/size/accuracy_end_to_end",
        ),
    ),
    "clusters": Comparison(
        "Do categories form clusters by themselves?",
        "k-means on the codes, with as many clusters as categories.",
        metrics=("clusters/nmi", "clusters/ari", "clusters/accuracy"),
    ),
    "redundancy": Comparison(
        "How many codes has an object?",
        "The paper's model returns several reconstructions of one object; one code for each is what users want.",
        metrics=(
            "detection/latents_per_object",
            "detection/count_error",
            "detection/recall",
            "detection/precision",
            "detection/ap50",
        ),
    ),
    "uncertainty": Comparison(
        "Is it known which codes mislead?",
        "Objects that the linear classifier takes for another category are to be ranked above the others, by what "
        "the model itself knows of them (AUROC: 0.5 is chance, 1 is perfect). Where the row of σ is missing, it "
        "is a constant of these models.",
        metrics=("uncertainty/sigma_auroc", "uncertainty/reconstruction_auroc", "uncertainty/score_auroc"),
    ),
    "cost": CostTable(
        "What do the methods cost?",
        "Untrained models at the plan's sizes, by the number of objects in each image. Memory is what a training "
        "step adds to the peak of a fresh process.",
    ),
    "classes": Comparison(
        "What do codes know of the classes that their detector was told?",
        "Models on class-aware detectors; those whose detector has the same recipe share it. Codes may read what "
        "its second look at each box saw (encoder.refiner_features), and may be taught the classes that it names "
        "(loss.classes): both leak its labels into the codes on purpose.",
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
        "What does each departure from the paper buy?",
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
