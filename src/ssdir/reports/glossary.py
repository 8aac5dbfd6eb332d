"""The meaning and the format of each metric, and the paper's value of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ssdir.reports.paper import PROBE, quoted

MISSING = "–"


@dataclass(frozen=True)
class Metric:
    """A metric as reports show it.

    Attributes:
        name: as `evaluate` calls it.
        label: what it is called.
        meaning: one or two sentences; empty where the label says it all.
        spec: format of the value.
        unit: follows the value.
        paper: what the paper reports (Table 2); empty where it has nothing.
    """

    name: str
    label: str
    meaning: str = ""
    spec: str = ".3f"
    unit: str = ""
    paper: str = ""

    def value(self, metrics: Mapping[str, float | None]) -> str:
        """The metric's value, with its standard deviation where there is one; a dash where it is undefined."""
        value = metrics.get(self.name)
        if value is None or not math.isfinite(value):
            return MISSING
        text = format(value, self.spec)
        if (deviation := metrics.get(f"{self.name}_std")) is not None:
            text = f"{text} ±\N{NO-BREAK SPACE}{format(deviation, self.spec)}"
        return f"{text}\N{NO-BREAK SPACE}{self.unit}".rstrip()


@dataclass(frozen=True)
class MetricGroup:
    """Metrics of one kind."""

    title: str
    metrics: tuple[Metric, ...]


GROUPS = (
    MetricGroup(
        "Is each object found once?",
        (
            Metric(
                "detection/ap",
                "AP",
                "COCO's average precision, over overlaps (IoU) from 0.5 to 0.95. 1 is best.",
            ),
            Metric("detection/ap50", "AP50", "The same where half an overlap is enough."),
            Metric("detection/recall", "Recall", "Share of true objects found, at IoU 0.5, one to one."),
            Metric("detection/precision", "Precision", "Share of returned objects that are true ones."),
            Metric(
                "detection/count_error",
                "Count error",
                "By how many objects an image's count is off, on average. 0 is best.",
                spec=".2f",
            ),
            Metric(
                "detection/latents_per_object",
                "Latents per object",
                "How many codes describe one true object. 1 is ideal; the paper's model returns several.",
                spec=".2f",
            ),
        ),
    ),
    MetricGroup(
        "Do the codes hold what is seen?",
        (
            Metric(
                "reconstruction/mse",
                "MSE of images",
                "Mean squared error of the image drawn from its objects, intensities in [0, 1]. Lower is better.",
                spec=".4f",
            ),
            Metric(
                "reconstruction/object_mse",
                "MSE of objects",
                "The same inside each object's box, drawn alone, over black.",
                spec=".4f",
            ),
            Metric(
                "reconstruction/psnr",
                "PSNR",
                "Signal-to-noise ratio of images. Higher is better.",
                spec=".1f",
                unit="dB",
            ),
            Metric("reconstruction/ssim", "SSIM", "Structural similarity of images, at most 1."),
        ),
    ),
    MetricGroup(
        "Whose is each pixel?",
        (
            Metric(
                "masks/fg_ari",
                "FG-ARI",
                "Do the pixels of true objects fall into the same groups? Adjusted Rand index, without the true "
                "background: 0 is chance, 1 is perfect. It does not see what spills over into the background.",
            ),
            Metric(
                "masks/miou",
                "mIoU",
                "Overlap of each true object's pixels with those of the one matched to it, one to one. 1 is best.",
            ),
            Metric("masks/mbo", "Mean best overlap", "The same with whichever object overlaps it best."),
        ),
    ),
    MetricGroup(
        "Do the codes tell what an object is?",
        (
            Metric(
                "probe/accuracy",
                "Accuracy",
                "A linear classifier reads the category off frozen codes of objects it has never seen. "
                "Conditional: only objects that the detector found count, as in the paper.",
                spec=".4f",
                paper=quoted(PROBE["SSDIR"]["accuracy"]),
            ),
            Metric(
                "probe/precision",
                "Precision",
                "Mean over categories.",
                spec=".4f",
                paper=quoted(PROBE["SSDIR"]["precision"]),
            ),
            Metric(
                "probe/recall",
                "Recall",
                "Mean over categories.",
                spec=".4f",
                paper=quoted(PROBE["SSDIR"]["recall"]),
            ),
            Metric(
                "probe/f1",
                "F1",
                "Mean over categories.",
                spec=".4f",
                paper=quoted(PROBE["SSDIR"]["f1"]),
            ),
            Metric(
                "probe/accuracy_end_to_end",
                "Accuracy, end to end",
                "Over all true objects: one that was not found counts as an error.",
                spec=".4f",
            ),
            Metric(
                "probe/knn_accuracy",
                "Accuracy of nearest neighbours",
                "A vote of the ten most similar codes, without training.",
                spec=".4f",
            ),
        ),
    ),
    MetricGroup(
        "Do the codes tell how an object looks?",
        (
            Metric(
                "properties/shape/accuracy",
                "Accuracy of shapes",
                "As for categories, by a classifier for each attribute that the data tell of.",
            ),
            Metric("properties/colour/accuracy", "Accuracy of colours"),
            Metric("properties/material/accuracy", "Accuracy of materials"),
            Metric("properties/size/accuracy", "Accuracy of sizes"),
            Metric(
                "properties/shape/accuracy_end_to_end",
                "Accuracy of shapes, end to end",
                "Here and below, an object that was not found counts as an error.",
            ),
            Metric("properties/colour/accuracy_end_to_end", "Accuracy of colours, end to end"),
            Metric("properties/material/accuracy_end_to_end", "Accuracy of materials, end to end"),
            Metric("properties/size/accuracy_end_to_end", "Accuracy of sizes, end to end"),
        ),
    ),
    MetricGroup(
        "Compared with what? The same classifier on …",
        (
            Metric("probe/true_boxes/accuracy", "codes at the true boxes", "What a perfect detector would give."),
            Metric(
                "probe/largest_overlap/accuracy",
                "codes of whatever overlaps a true object",
                "Each takes the category of the object that it overlaps most, however little, as in the paper.",
            ),
            Metric(
                "probe/pooled_features/accuracy",
                "the detector's own features",
                "A floor: what any detector offers without SSDIR, pooled in each box, at the same size.",
            ),
            Metric(
                "probe/labels/accuracy",
                "the class that the detector names",
                "A floor, of detectors that are told classes: what they know before there are codes.",
            ),
            Metric(
                "probe/random_encoder/accuracy",
                "codes of an untrained encoder",
                "A floor: all but the detector has its initial weights.",
            ),
            Metric(
                "probe/raw_pixels/accuracy",
                "the pixels in the box",
                "A floor: no network but the detector's boxes; at the same size.",
            ),
        ),
    ),
    MetricGroup(
        "Is a code the same at any size?",
        (
            Metric(
                "scale/drift",
                "Drift",
                "How far a code moves when only the object's size changes, relative to the distance between "
                "different objects. 0 is invariance; at 1, another size is like another object.",
            ),
            Metric(
                "scale/retrieval_at_1",
                "Found again at four times the size",
                "How often the nearest code among large objects is that of the very same one.",
            ),
            Metric(
                "scale/pooled_features/retrieval_at_1",
                "The same by the detector's own features",
                "A floor: what any detector offers, pooled in each box.",
            ),
            Metric("scale/small_to_large/accuracy", "Accuracy, trained on small, tested on large objects"),
            Metric("scale/large_to_small/accuracy", "Accuracy, trained on large, tested on small objects"),
            Metric("scale/probe/accuracy_small", "Accuracy on small objects", "Trained on all sizes."),
            Metric("scale/probe/accuracy_medium", "Accuracy on middling objects"),
            Metric("scale/probe/accuracy_large", "Accuracy on large objects"),
            Metric("scale/object_mse_small", "MSE of small objects", "Drawn alone, over black.", spec=".4f"),
            Metric("scale/object_mse_medium", "MSE of middling objects", spec=".4f"),
            Metric("scale/object_mse_large", "MSE of large objects", spec=".4f"),
        ),
    ),
    MetricGroup(
        "Is it known which codes mislead?",
        (
            Metric(
                "uncertainty/sigma_auroc",
                "σ of the code",
                "How well it ranks objects that the classifier takes for another category above the others "
                "(AUROC): 0.5 is chance, 1 is perfect. Undefined where σ is a constant of the model.",
            ),
            Metric("uncertainty/reconstruction_auroc", "Error of the redrawn object", "Its AUROC."),
            Metric("uncertainty/score_auroc", "Low detection score", "Its AUROC; what any detector offers."),
        ),
    ),
    MetricGroup(
        "What else is in the codes?",
        (
            Metric(
                "clusters/nmi",
                "NMI of clusters",
                "Do categories form clusters by themselves? Mutual information of k-means clusters and "
                "categories: 0 is chance, 1 is perfect.",
            ),
            Metric("clusters/ari", "ARI of clusters", "The same, as agreement of pairs (adjusted Rand index)."),
            Metric("clusters/accuracy", "Accuracy of clusters", "Each cluster taken for one category."),
            Metric(
                "depth/order_accuracy",
                "Order of depth",
                "Share of overlapping pairs whose nearer object has the larger depth. 0.5 is chance.",
            ),
            Metric("depth/pairs", "Pairs", "So many overlap, and were found.", spec=",.0f"),
        ),
    ),
)
"""The metrics in the order in which reports show them."""

METRICS = {metric.name: metric for group in GROUPS for metric in group.metrics}
"""The metrics by name."""
