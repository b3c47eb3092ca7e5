"""Lines for the parts of a module."""

from __future__ import annotations

import pytest

from sw.cli.module_tree import Line, tree

BERT = [
    f"encoder.layer.{i}.{part}" for i in range(3) for part in ("query (Linear)", "output.dense")
]


def labels(names, **options) -> list[str]:
    return [line.label for line in tree(names, **options)]


def test_alike_layers_are_a_line_each():
    lines = tree(["embeddings.norm", *BERT, "pooler"])
    assert lines == [
        Line("embeddings.norm", (0,)),
        Line("encoder.layer.0", (1, 2)),
        Line("  query (Linear)", (1,)),
        Line("  output.dense", (2,)),
        Line("encoder.layer.1", (3, 4)),
        Line("encoder.layer.2", (5, 6)),
        Line("pooler", (7,)),
    ]
    assert len(tree(BERT, every_part=True)) == 3 + len(BERT)


def test_a_layer_with_other_parts_is_shown():
    names = [*BERT, "encoder.layer.3.query", "encoder.layer.3.other"]
    assert labels(names)[-3:] == ["encoder.layer.3", "  query", "  other"]
    decoder = [name.replace("encoder", "decoder") for name in BERT]
    assert labels([*BERT, *decoder])[5:7] == ["decoder.layer.0", "  query (Linear)"]


@pytest.mark.parametrize(
    "names",
    [
        ["0 (Linear)", "2 (Linear)"],  # layers of one part
        ["model.0.first", "model.0.second"],  # all in the only one of its numbers
        ["first", "fc1", "(top)"],
    ],
)
def test_no_layers(names):
    assert tree(names) == [Line(name, (i,)) for i, name in enumerate(names)]


def test_the_outermost_number_that_tells_parts_apart():
    names = [f"model.0.stages.{i}.blocks.{j}.mlp" for i in range(2) for j in range(2)]
    assert labels(names) == [
        "model.0.stages.0",
        "  blocks.0.mlp",
        "  blocks.1.mlp",
        "model.0.stages.1",
    ]
    assert labels(["block1.a", "block1.b", "block2.a"]) == ["block1", "  a", "  b", "block2.a"]
