"""The metrics: their names in reports, their meaning, their format, and what the paper reports of them."""

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
        name: its key in what `evaluate` returns.
        label: its name in reports.
        meaning: one or two sentences; empty where the label says it all.
        spec: format of the value.
        unit: unit that follows the value.
        paper: the value in the paper (Table 2); empty where it has none.
    """

    name: str
    label: str
    meaning: str = ""
    spec: str = ".3f"
    unit: str = ""
    paper: str = ""

    def value(self, metrics: Mapping[str, float | None]) -> str:
        """Formats the value, with its standard deviation where there is one; a dash where it is undefined."""
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


def _paper(score: str) -> str:
    return quoted(PROBE["SSDIR"][score])


GROUPS = (
    MetricGroup(
        "Detection",
        (
            Metric(
                "detection/ap", "AP", "COCO's average precision, over overlaps (IoU) from 0.5 to 0.95. 1 is best."
            ),
            Metric("detection/ap50", "AP50", "Average precision at an IoU of 0.5."),
            Metric(
                "detection/recall", "Recall", "Share of true objects that are detected, at IoU 0.5, one to one."
            ),
            Metric("detection/precision", "Precision", "Share of detected objects that are true ones."),
            Metric(
                "detection/count_error",
                "Count error",
                "Mean difference between the number of detected and of true objects of an image. 0 is best.",
                ".2f",
            ),
            Metric(
                "detection/latents_per_object",
                "Latents per object",
                "Number of embeddings that encode one true object. 1 is ideal; the paper's model returns several.",
                ".2f",
            ),
        ),
    ),
    MetricGroup(
        "Reconstruction",
        (
            Metric(
                "reconstruction/mse",
                "MSE of images",
                "Mean squared error of the image decoded from its objects, intensities in [0, 1]. 0 is best.",
                ".4f",
            ),
            Metric(
                "reconstruction/object_mse",
                "MSE of objects",
                "Mean squared error inside each object's box, decoded alone, over black.",
                ".4f",
            ),
            Metric(
                "reconstruction/psnr", "PSNR", "Signal-to-noise ratio of images. Higher is better.", ".1f", "dB"
            ),
            Metric("reconstruction/ssim", "SSIM", "Structural similarity of images, at most 1."),
            Metric(
                "reconstruction/object_ssim",
                "SSIM of objects",
                "Structural similarity within true boxes, resized to 64×64 pixels, at most 1.",
            ),
            Metric(
                "reconstruction/object_lpips",
                "LPIPS of objects",
                "Distance of AlexNet's features within true boxes, resized to 64×64 pixels. 0 is identical.",
            ),
        ),
    ),
    MetricGroup(
        "Segmentation by opacity",
        (
            Metric(
                "masks/fg_ari",
                "FG-ARI",
                "Adjusted Rand index of the pixels of true objects, without the true background: 0 is chance, 1 "
                "is perfect. It ignores what spills over into the background.",
            ),
            Metric(
                "masks/miou",
                "mIoU",
                "IoU of each true object's pixels with those of its one-to-one match. 1 is best.",
            ),
            Metric("masks/mbo", "Mean best overlap", "The same with whichever object overlaps it best."),
        ),
    ),
    MetricGroup(
        "Probe of the category",
        (
            Metric(
                "probe/accuracy",
                "Accuracy",
                "A linear classifier predicts the category from frozen embeddings of objects it has never seen. "
                "Conditional: only detected objects count, as in the paper.",
                ".4f",
                paper=_paper("accuracy"),
            ),
            Metric("probe/precision", "Precision", "Mean over categories.", ".4f", paper=_paper("precision")),
            Metric("probe/recall", "Recall", "Mean over categories.", ".4f", paper=_paper("recall")),
            Metric("probe/f1", "F1", "Mean over categories.", ".4f", paper=_paper("f1")),
            Metric(
                "probe/accuracy_end_to_end",
                "Accuracy, end to end",
                "Over all true objects: one that is not detected counts as an error.",
                ".4f",
            ),
            Metric(
                "probe/knn_accuracy",
                "Accuracy of nearest neighbours",
                "A vote of the ten most similar embeddings, without training.",
                ".4f",
            ),
        ),
    ),
    MetricGroup(
        "Probes of attributes",
        (
            Metric(
                "properties/shape/accuracy",
                "Accuracy of shapes",
                "As for categories, by a classifier for each attribute that is annotated.",
            ),
            Metric("properties/colour/accuracy", "Accuracy of colours"),
            Metric("properties/material/accuracy", "Accuracy of materials"),
            Metric("properties/size/accuracy", "Accuracy of sizes"),
            Metric(
                "properties/shape/accuracy_end_to_end",
                "Accuracy of shapes, end to end",
                "Here and below, an object that is not detected counts as an error.",
            ),
            Metric("properties/colour/accuracy_end_to_end", "Accuracy of colours, end to end"),
            Metric("properties/material/accuracy_end_to_end", "Accuracy of materials, end to end"),
            Metric("properties/size/accuracy_end_to_end", "Accuracy of sizes, end to end"),
        ),
    ),
    MetricGroup(
        "Ceiling and floors: the same probe on …",
        (
            Metric(
                "probe/true_boxes/accuracy",
                "embeddings of the true boxes",
                "A ceiling: what a perfect detector would give.",
            ),
            Metric(
                "probe/largest_overlap/accuracy",
                "embeddings of all that overlaps a true object",
                "Each takes the category of the object that it overlaps most, however little, as in the paper.",
            ),
            Metric(
                "probe/pooled_features/accuracy",
                "the detector's features",
                "A floor: what any detector offers without SSDIR, pooled in each box, reduced to the same size.",
            ),
            Metric(
                "probe/labels/accuracy",
                "the detector's class",
                "A floor, of class-aware detectors: what they know before there are embeddings.",
            ),
            Metric(
                "probe/random_encoder/accuracy",
                "embeddings of an untrained encoder",
                "A floor: all but the detector has its initial weights.",
            ),
            Metric(
                "probe/raw_pixels/accuracy",
                "the pixels in the box",
                "A floor: no network but the detector, pixels reduced to the same size. It tends to chance with "
                "fewer than two training objects for each number, as those of the detector's features do.",
            ),
        ),
    ),
    MetricGroup(
        "Scale invariance",
        (
            Metric(
                "scale/drift",
                "Drift",
                "How far an embedding moves when only the object's size changes, relative to the distance between "
                "different objects. 0 is invariance; at 1, another size is like another object.",
            ),
            Metric(
                "scale/retrieval_at_1",
                "Retrieval at four times the size",
                "How often the nearest embedding among large objects is that of the very same object.",
            ),
            Metric(
                "scale/pooled_features/retrieval_at_1",
                "Retrieval by the detector's features",
                "A floor: what any detector offers, pooled in each box.",
            ),
            Metric("scale/small_to_large/accuracy", "Accuracy, trained on small, tested on large objects"),
            Metric("scale/large_to_small/accuracy", "Accuracy, trained on large, tested on small objects"),
            Metric("scale/probe/accuracy_small", "Accuracy on small objects", "Trained on all sizes."),
            Metric("scale/probe/accuracy_medium", "Accuracy on medium objects"),
            Metric("scale/probe/accuracy_large", "Accuracy on large objects"),
            Metric("scale/object_mse_small", "MSE of small objects", "Decoded alone, over black.", ".4f"),
            Metric("scale/object_mse_medium", "MSE of medium objects", spec=".4f"),
            Metric("scale/object_mse_large", "MSE of large objects", spec=".4f"),
        ),
    ),
    MetricGroup(
        "Signals of a wrong class: which objects the probe takes for another category",
        (
            Metric(
                "uncertainty/sigma_auroc",
                "σ of the embedding",
                "How well it ranks objects that the probe takes for another category above the others (AUROC): "
                "0.5 is chance, 1 is perfect. Undefined where σ is a constant of the model.",
            ),
            Metric("uncertainty/reconstruction_auroc", "Error of the decoded object", "Its AUROC."),
            Metric("uncertainty/score_auroc", "Low detection score", "Its AUROC; what any detector offers."),
        ),
    ),
    MetricGroup(
        "Clusters and depth",
        (
            Metric(
                "clusters/nmi",
                "NMI of clusters",
                "Normalised mutual information of k-means clusters of embeddings and categories: 1 is perfect. "
                "Unlike the ARI, it is not corrected for chance: random clusters of few objects are above 0 too.",
            ),
            Metric("clusters/ari", "ARI of clusters", "The same, as agreement of pairs (adjusted Rand index)."),
            Metric("clusters/accuracy", "Accuracy of clusters", "Each cluster taken for one category."),
            Metric(
                "clusters/mixture/nmi",
                "NMI of the mixture's classes",
                "The same of the components of a mixture prior, without k-means.",
            ),
            Metric("clusters/mixture/ari", "ARI of the mixture's classes", "The same, as agreement of pairs."),
            Metric(
                "clusters/mixture/accuracy",
                "Accuracy of the mixture's classes",
                "Each component taken for one category (Hungarian matching).",
            ),
            Metric(
                "depth/order_accuracy",
                "Order of depth",
                "Share of overlapping pairs whose nearer object has the larger depth. 0.5 is chance.",
            ),
            Metric(
                "depth/lower_edge_accuracy",
                "Order of depth by lower edges",
                "The same, if the object whose box ends lower in the image is taken as the nearer one. A floor.",
            ),
            Metric("depth/pairs", "Pairs", "Overlapping pairs of which both objects are detected.", ",.0f"),
        ),
    ),
    MetricGroup(
        "Tracks in clips",
        (
            Metric(
                "tracking/hota",
                "HOTA",
                "Geometric mean of DetA and AssA, over overlaps (IoU) from 0.05 to 0.95. 1 is best.",
            ),
            Metric("tracking/det_a", "DetA", "Detection accuracy: matched boxes of all true and tracked ones."),
            Metric(
                "tracking/ass_a",
                "AssA",
                "Association accuracy: of the boxes of a true and a tracked object, the share that match.",
            ),
            Metric("tracking/loc_a", "LocA", "Mean overlap of matched boxes."),
            Metric(
                "tracking/idf1",
                "IDF1",
                "F1 of boxes with the right identity, where each true track has at most one. IoU 0.5.",
            ),
            Metric(
                "tracking/mota",
                "MOTA",
                "1 − (missed boxes + boxes where nothing is + switches) / true boxes. IoU 0.5.",
            ),
            Metric("tracking/id_switches", "Switches", "Times that a true object changes its track.", ",.0f"),
            Metric(
                "tracking/fragmentations", "Fragmentations", "Times that a track goes on after a break.", ",.0f"
            ),
            Metric("tracking/motion_only/hota", "HOTA of motion alone", "The same tracker without embeddings."),
            Metric("tracking/motion_only/idf1", "IDF1 of motion alone"),
        ),
    ),
    MetricGroup(
        "Identity in clips, at true boxes",
        (
            Metric(
                "identity/retrieval_at_1_gap_10",
                "Retrieval after 10 frames",
                "How often the nearest embedding in the later frame is that of the same object.",
            ),
            Metric("identity/retrieval_at_1_gap_20", "Retrieval after 20 frames"),
            Metric(
                "identity/all_clips/retrieval_at_1_gap_10",
                "Retrieval after 10 frames among all clips",
                "The same, among the objects that the frame of this number has in any clip.",
            ),
            Metric(
                "identity/drift_gap_10",
                "Drift over 10 frames",
                "Cosine distance of an object to itself 10 frames later, relative to that to other objects. 0 is "
                "invariance; at 1, later it is like another object.",
            ),
            Metric(
                "identity/auroc_gap_10",
                "Same or other after 10 frames",
                "Probability that two views of one object are nearer than views of two (AUROC). 0.5 is chance.",
            ),
            Metric(
                "identity/pooled_features/retrieval_at_1_gap_10",
                "Retrieval by the detector's features",
                "A floor: what any detector offers, pooled in each box.",
            ),
            Metric("identity/pooled_features/drift_gap_10", "Drift of the detector's features"),
            Metric(
                "identity/single_frame/retrieval_at_1_gap_10",
                "Retrieval without memory",
                "Of models with a memory of tracks: by what they read from the later frame alone.",
            ),
            Metric("identity/single_frame/drift_gap_10", "Drift without memory"),
        ),
    ),
    MetricGroup(
        "Objects of which over half is hidden, at true boxes",
        (
            Metric(
                "hidden/accuracy",
                "Accuracy of hidden objects",
                "A linear classifier learns from objects that are mostly visible, and is measured on these.",
            ),
            Metric(
                "hidden/clear/accuracy", "Accuracy of the others", "Of objects of which at least half is visible."
            ),
            Metric("hidden/all/accuracy", "Accuracy of all"),
            Metric("hidden/single_frame/accuracy", "Accuracy of hidden objects, without memory"),
            Metric("hidden/objects", "Hidden objects", "Their number.", ",.0f"),
        ),
    ),
)
"""All metrics, in the order in which reports show them."""

METRICS = {metric.name: metric for group in GROUPS for metric in group.metrics}
"""All metrics by name."""
