"""AXI signatures: complete for the bus models we test with, and the halves make the whole."""

from amaranth.lib.wiring import In, Out
from cocotbext.axi import axi_channels, axil_channels

from hw.dma.axi import Axi4ReadSignature, Axi4Signature, Axi4WriteSignature, AxiLiteSignature


def names(*buses) -> set[str]:
    return {signal for bus in buses for signal in bus._signals}


def test_members_of_axi4():
    read, write = Axi4ReadSignature(32, 16), Axi4WriteSignature(32, 16)
    whole = Axi4Signature(32, 16)
    assert dict(whole.members) == dict(write.members) | dict(read.members)
    assert names(axi_channels.AxiARBus, axi_channels.AxiRBus) <= set(read.members)
    assert names(axi_channels.AxiAWBus, axi_channels.AxiWBus, axi_channels.AxiBBus) <= set(
        write.members
    )
    for name, member in whole.members.items():
        from_slave = name.endswith("ready") != (name[0] in "rb")
        assert member.flow == (In if from_slave else Out), name


def test_members_of_axi_lite():
    channels = axil_channels
    buses = (
        channels.AxiLiteAWBus,
        channels.AxiLiteWBus,
        channels.AxiLiteBBus,
        channels.AxiLiteARBus,
        channels.AxiLiteRBus,
    )
    members = AxiLiteSignature().members
    assert names(*buses) <= set(members)
    for name, member in members.items():
        from_slave = name.endswith("ready") != (name[0] in "rb")
        assert member.flow == (In if from_slave else Out), name
