"""The error of each class, recomputed image by image."""

import pytest
from plain_lesions import make_batches, make_network, plain_logits

from resnet_cli.results.tables import column_names
from resnet_cli.studies.delete import class_rows
from resnet_cli.studies.lesion import Deletion, evaluate_lesions, lesion_rows


def test_class_errors_are_those_of_plain_predictions() -> None:
    network, batches = make_network(), make_batches(150)  # more than one batch
    deletions = [Deletion(0, (2,)), Deletion(3, (0, 5))]
    outcomes = evaluate_lesions(network, batches, deletions)
    rows = class_rows(deletions, outcomes, batches, seed=6)
    images, labels = batches.evaluation(0, 150)
    intact = plain_logits(network, images, []).argmax(1)
    expected = []
    for deletion in deletions:
        predicted = plain_logits(network, images, list(deletion.units)).argmax(1)
        for index, name in enumerate("abcde"):
            of_class = [i for i in range(150) if int(labels[i]) == index]
            wrong = sum(int(predicted[i]) != index for i in of_class)
            wrong_intact = sum(int(intact[i]) != index for i in of_class)
            expected.append(
                {
                    "blocks": " ".join(map(str, deletion.units)),
                    "class": index,
                    "images": len(of_class),
                    "test_error": 100.0 * wrong / len(of_class),
                    "baseline_error": 100.0 * wrong_intact / len(of_class),
                    "class_name": name,
                    "k": len(deletion.units),
                    "sample": deletion.sample,
                    "seed": 6,
                }
            )
    assert rows == expected
    assert set(rows[0]) == set(column_names("lesion_classes"))


def test_classes_weighed_by_their_images_give_the_whole_error() -> None:
    network, batches = make_network(), make_batches(60)
    deletions = [Deletion(0, (unit,)) for unit in range(6)]
    outcomes = evaluate_lesions(network, batches, deletions)
    by_class = class_rows(deletions, outcomes, batches, 0)
    for row in lesion_rows(deletions, outcomes, 0):
        mine = [c for c in by_class if c["blocks"] == row["blocks"]]
        whole = sum(c["test_error"] * c["images"] for c in mine) / 60
        assert whole == pytest.approx(row["test_error"])


def test_a_class_without_images_has_no_error() -> None:
    network, batches = make_network(), make_batches(3)
    deletions = [Deletion(0, (1,))]
    rows = class_rows(deletions, evaluate_lesions(network, batches, deletions), batches, 0)
    absent = [row for row in rows if row["images"] == 0]
    assert absent
    assert all(row["test_error"] is None and row["baseline_error"] is None for row in absent)
