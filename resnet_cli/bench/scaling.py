"""How the cost of studies grows with depth and with the number of images."""

from resnet_cli.bench.measure import timed
from resnet_cli.bench.subjects import Settings, batches_of, benchmark_network, random_split
from resnet_cli.studies.paths.exact import exact_spectrum
from resnet_cli.studies.walks import delete, evaluate_walks, intact

DEPTHS = (20, 56, 110, 164)
IMAGES = (32, 64, 128)
STUDIES = ("lesion_single", "exact_sweep")


def points(settings: Settings) -> list[tuple[str, int, int]]:
    """(study, depth, images): several depths with 32 images, and several numbers of images with
    depth 56."""
    if settings.small:
        return [(study, 8, 8) for study in STUDIES]
    wanted = [(depth, IMAGES[0]) for depth in DEPTHS] + [(56, count) for count in IMAGES[1:]]
    return [(study, depth, images) for study in STUDIES for depth, images in wanted]


def point_seconds(study: str, depth: int, images: int) -> float:
    """Duration in seconds of one study of a pre-activation network with two-layer units."""
    split = random_split(images)
    settings = Settings()
    network = benchmark_network(settings, depth, split)
    batches, num_units = batches_of(split), len(network.units)
    if study == "exact_sweep":
        x, y = batches.evaluation(0, images)
        return timed(lambda: exact_spectrum(network, x, y))
    walks = [delete(intact(num_units), [unit]) for unit in range(num_units)]
    return timed(lambda: evaluate_walks(network, batches, walks))
