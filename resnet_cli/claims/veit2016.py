"""The claims of paper 2 (Veit et al. 2016, arXiv:1605.06431)."""

from resnet_cli.claims.veit2016_lesions import (
    downsampling_is_modest,
    downsampling_matters,
    mean_of,
    more_resilient,
    resilient,
    rises_smoothly,
    survives,
    vgg_falls,
)
from resnet_cli.claims.veit2016_numbers import CHANCE, PAPER, paper_number
from resnet_cli.claims.veit2016_paths import (
    falls_exponentially,
    highways_too,
    long_paths_go,
    paths_are_of_medium_length,
    short_and_few,
    trains_as_well,
)
from resnet_cli.claims.verdict import Claim

CLAIMS: tuple[Claim, ...] = (
    Claim(
        PAPER,
        "fig3",
        "Deleting any one layer of a VGG brings its error to chance level",
        {"fig3": ("vgg15",)},
        vgg_falls,
        f"to about {CHANCE:g} %, whichever layer is deleted",
    ),
    Claim(
        PAPER,
        "fig3",
        "Deleting one unit of a residual network barely changes its error",
        {"fig3": ("preact110",)},
        survives("fig3", "preact110"),
        "no number given",
        short="Deleting one unit barely matters",
    ),
    Claim(
        PAPER,
        "fig3",
        "The units that downsample matter most when deleted",
        {"fig3": ("preact110",)},
        downsampling_matters,
    ),
    Claim(
        PAPER,
        "fig3",
        "The damage of deleting a unit that downsamples is modest",
        {"fig3": ("preact110",)},
        downsampling_is_modest,
    ),
    Claim(
        PAPER,
        "fig4",
        "Deleting one unit of an ImageNet ResNet-200 barely changes its error",
        {"fig4": ()},
        survives("fig4", "main"),
    ),
    Claim(
        PAPER,
        "fig5a",
        "The error grows smoothly with the number of deleted units",
        {"fig5a": ()},
        rises_smoothly("fig5a", "lesion_delete", "k"),
    ),
    Claim(
        PAPER,
        "fig5b",
        "The error grows smoothly as the units are reordered",
        {"fig5b": ()},
        rises_smoothly("fig5b", "lesion_reorder", "swaps"),
    ),
    Claim(
        PAPER,
        "fig6a",
        "More than 95 % of all paths go through 19 to 35 units",
        {"fig6": ()},
        paths_are_of_medium_length,
        is_check=True,
    ),
    Claim(
        PAPER,
        "fig6b",
        "The gradient of a path falls exponentially with its length",
        {"fig6": (), "fig3": ("preact110",)},
        falls_exponentially,
    ),
    Claim(
        PAPER,
        "fig6c",
        "Almost all gradient comes from few and short paths, of 5 to 17 of 54 units",
        {"fig6": (), "fig3": ("preact110",)},
        short_and_few,
        f"{paper_number('fig6c', 'effective_paths_percent'):g} % of all paths",
        short="Short paths carry nearly all gradient",
    ),
    Claim(
        PAPER,
        "section5",
        "Training with 23 of 54 units active in each batch does as well as training all",
        {"effective_paths": ("full", "active-23")},
        trains_as_well,
        f"{paper_number('section5', 'error-active-23'):.2f} % against "
        f"{paper_number('section5', 'error-full'):.2f} % with all",
        short="Training 23 of 54 units does as well",
    ),
    Claim(
        PAPER,
        "fig7",
        "Deleting units removes mostly long paths",
        {"fig7": ()},
        long_paths_go,
        is_check=True,
    ),
    Claim(
        PAPER,
        "fig8",
        "Stochastic depth makes a network more resilient to the deletion of a unit",
        {"fig8": ("plain", "stochastic-depth")},
        resilient,
    ),
    Claim(
        PAPER,
        "fig8",
        "Stochastic depth adds resilience at the units that downsample",
        {"fig8": ("plain", "stochastic-depth")},
        more_resilient(
            "mean of the units that downsample",
            lambda damages, changes: mean_of([damages[unit] for unit in changes]),
        ),
    ),
    Claim(
        PAPER,
        "discussion",
        "Highway networks also rely on short paths",
        {"highway_paths": (), "highway_lesion": ()},
        highways_too,
    ),
)
"""Every claim, in the order of the paper."""
