"""What figures say in words."""

from figure_tables import HEADING

from resnet_cli.config.experiments import load_experiment
from resnet_cli.figures.titles import Heading, case_names, figure_title, heading_of, network_title


def test_titles_say_what_where_and_on_what() -> None:
    title = "Figure 3: Shown (pre-act ResNet-110, digits, 15 epochs, profile mini)"
    assert HEADING.over("Shown") == title
    assert Heading(None, "ResNet-20", "cifar10").over("Shown") == "Shown (ResNet-20, CIFAR-10)"
    assert Heading("discussion", "", "", "1 epoch").over("Shown") == "Shown (1 epoch)"
    assert Heading().over("Shown") == "Shown"
    # Neither the network nor the paper's data set is named twice.
    told = Heading("table3", "ResNet-110", "digits").over("By depth, ResNet-110, CIFAR-10")
    assert told == "Table 3: By depth, ResNet-110, CIFAR-10 (digits)".replace(", CIFAR-10", "")


def test_names_in_words() -> None:
    assert [figure_title(name) for name in ("fig5a", "table1", "section5", "discussion", None)] == [
        "Figure 5a",
        "Table 1",
        "Section 5",
        "",
        "",
    ]
    assert network_title("preact110") == "pre-act ResNet-110"
    assert network_title("vgg15") == "VGG-15"
    assert network_title("resnet110-exclusive_gating") == "ResNet-110, exclusive gating"
    assert network_title("my-weights") == "my-weights"


def test_headings_of_experiments() -> None:
    table1 = load_experiment("he2016/table1", "mini")
    title = heading_of(table1).over(table1.title)
    setting = "digits, 45 epochs, profile mini"
    assert title == f"He et al. 2016, Table 1: Kinds of shortcut, ResNet-110 ({setting})"
    dropout = next(case for case in table1.cases if case.name == "dropout")
    assert heading_of(table1, dropout).network == "ResNet-110, dropout 0.5"
    fig3 = load_experiment("veit2016/fig3", "mini")
    assert heading_of(fig3).network == ""  # a VGG and a ResNet
    assert [heading_of(fig3, case).network for case in fig3.cases] == [
        "VGG-15",
        "pre-act ResNet-110",
    ]
    fig8 = load_experiment("veit2016/fig8", "mini")
    assert heading_of(fig8, fig8.cases[1], 2).network == (
        "pre-act ResNet-110, stochastic depth, seed 2"
    )


def test_a_case_of_another_depth_than_the_papers_tells_both() -> None:
    names = case_names(load_experiment("he2016/fig6a", "smoke"))
    assert list(names.values()) == ["original unit, 8 for 110", "BN after addition, 8 for 110"]
    names = case_names(load_experiment("he2016/fig6a", "mini"))
    assert list(names.values()) == ["original unit, 110", "BN after addition, 110"]
    names = case_names(load_experiment("he2016/table1", "cpu"))
    assert names["exclusive-gating-bias-6"] == "exclusive gate, bias -6"
