"""Configurations that cannot work are refused with a text that names the field."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hw.config import PRESETS, AcceleratorConfig, ConfigError, get_config


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rows": 15}, "rows=15 must be even"),
        ({"rows": 0}, "rows must be a positive integer"),
        ({"columns": 1}, "columns=1 must be 2 to 128"),
        ({"lanes": 3}, "lanes=3 must be a power of two"),
        ({"lanes": 32}, "lanes=32 must be a power of two that divides rows=16"),
        ({"rows": 12, "columns": 8, "lanes": 8}, "lanes=8 must be a power of two that divides"),
        ({"bus_bytes": 24}, "bus_bytes=24 must be a power of two"),
        ({"bus_bytes": 32}, "bus_bytes=32 must not exceed the narrowest memory word"),
        ({"burst_bytes": 8}, "burst_bytes=8"),
        ({"activation_words": 1001}, "activation_words=1001 must be even"),
        ({"weight_words": 1 << 17}, "weight_words=131072 must be even"),
        ({"param_words": 5000}, "param_words=5000"),
        ({"row_slots": 1}, "row_slots=1"),
        ({"address_bits": 31}, "address_bits=31 must be 32 to 64"),
        ({"address_bits": 65}, "address_bits=65 must be 32 to 64"),
        ({"queue_depth": 6}, "queue_depth=6"),
        ({"max_outstanding": 3}, "max_outstanding=3"),
        ({"rows": 16.0}, "rows must be a positive integer, got 16.0"),
        ({"rows": True}, "rows must be a positive integer, got True"),
        ({"sparse": 1}, "sparse must be a bool, got 1"),
        ({"int4": "yes"}, "int4 must be a bool, got 'yes'"),
        ({"scales": True}, "scales=True needs int4=True: they are of INT4 weights"),
        (
            {"rows": 80, "columns": 80, "int4": True, "scales": True},
            "rows=80 must be at most 64 with scales=True",
        ),
        ({"sparse": True, "activation_words": 1002}, "activation_words=1002 must be a multiple"),
    ],
)
def test_impossible_configurations(change, text):
    with pytest.raises(ConfigError) as error:
        AcceleratorConfig(name="bad", **change)
    assert text in str(error.value)
    assert "configuration 'bad'" in str(error.value)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="'huge'; presets: tiny, ulx3s, base"):
        get_config("huge")


def test_options_are_added_to_a_preset():
    assert get_config("ulx3s+sleep") == dataclasses.replace(
        get_config("ulx3s"), name="ulx3s+sleep", sleep=True
    )
    with pytest.raises(ConfigError, match=r"'tiny\+sleeps': options are .*sleep"):
        get_config("tiny+sleeps")
    with pytest.raises(ConfigError, match="unknown configuration 'small"):
        get_config("small+sleep")


def test_fingerprint_depends_on_every_size_but_not_on_the_name():
    base = get_config("base")
    assert dataclasses.replace(base, name="other").fingerprint() == base.fingerprint()
    prints = {c.fingerprint() for c in PRESETS.values()}
    assert len(prints) == len(PRESETS)
    changed = {
        dataclasses.replace(base, **{f: getattr(base, f) * 2}).fingerprint()
        for f in ("activation_words", "param_words", "mask_words", "row_slots", "queue_depth")
    }
    changed |= {
        dataclasses.replace(base, **{f: not getattr(base, f)}).fingerprint()
        for f in ("sparse", "scales", "decoder", "sleep", "prune")
    }
    changed.add(dataclasses.replace(base, int4=False, scales=False).fingerprint())
    assert len(changed) == 11 and base.fingerprint() not in changed


def test_option_that_is_off_leaves_the_fingerprint_of_older_machines():
    assert get_config("ulx3s").fingerprint() == 0x3FF49A70
    assert get_config("base").fingerprint() == 0x9A9A58AB


def test_differences_name_options_that_one_of_two_machines_lacks():
    base = get_config("base")
    bare = dataclasses.replace(base, scales=False, row_slots=64)
    assert base.differences(bare) == "row_slots 128 against 64, scales True against False"
    assert bare.differences(base) == "row_slots 64 against 128, scales False against True"
    assert base.differences(dataclasses.replace(base, name="other")) == ""


@pytest.mark.parametrize(("rows", "bits"), [(4, 18), (8, 19), (12, 20), (16, 20), (32, 21)])
def test_partial_sums_hold_the_largest_value(rows, bits):
    config = AcceleratorConfig(rows=rows, columns=16, lanes=2, bus_bytes=4)
    assert config.psum_bits == bits
    assert rows * 255 * 128 < 1 << (bits - 1)
    assert config.sum_bits == bits
    wide = dataclasses.replace(config, decoder=True)
    assert wide.sum_bits == bits + 8
    assert rows * 257 * 128 * 128 < 1 << (wide.sum_bits - 1)


def test_files(tmp_path):
    path = tmp_path / "mine+other.json"
    fields = {"rows": 8, "columns": 8, "lanes": 4, "bus_bytes": 8}
    path.write_text(json.dumps(fields))
    assert get_config(str(path)) == AcceleratorConfig(name="mine+other", **fields)
    found = get_config(f"{path}+sleep+sparse")
    assert found == AcceleratorConfig(name="mine+other+sleep+sparse", sleep=True, sparse=True,
                                      **fields)  # fmt: skip
    path.write_text(json.dumps(dataclasses.asdict(PRESETS["ulx3s"])))
    assert get_config(str(path)) == PRESETS["ulx3s"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold an object of fields"),
        ('{"row": 8}', "there is no field 'row'; there are name, rows"),
        ('{"rows": "8"}', "rows must be a positive integer, got '8'"),
        ('{"name": 3}', "name must be a text"),
        ('{"rows": 7}', "rows=7 must be even"),
    ],
)
def test_bad_files(tmp_path, text, complaint):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        get_config(str(path))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        get_config(str(tmp_path / "none.json"))
