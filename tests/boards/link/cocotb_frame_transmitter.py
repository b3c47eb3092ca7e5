"""Payloads become the frames that the protocol's definition makes of them."""

import cocotb

from boards.link.protocol import frame
from tests.stream_helpers import (
    STALLS,
    make_rng,
    start,
    stream_get_all,
    stream_put_all,
    with_limit,
)


@cocotb.test()
@cocotb.parametrize(put_stall=list(STALLS.values()), get_stall=list(STALLS.values()))
async def frames(dut, put_stall, get_stall):
    await start(dut)
    rng = make_rng()
    special = [0x7D, 0x7E, 0x5D, 0x5E]
    payloads = [
        bytes(rng.choice([rng.randrange(256), rng.choice(special)]) for _ in range(size))
        for size in (1, 2, 3, 9, 40, 5)
    ]
    items = [b | (i == len(p) - 1) << 8 for p in payloads for i, b in enumerate(p)]
    cocotb.start_soon(stream_put_all(dut, "i", items, rng, put_stall))
    expected = b"".join(frame(payload) for payload in payloads)
    got = await with_limit(stream_get_all(dut, "o", len(expected), rng, get_stall), 20000)
    assert bytes(got) == expected
