"""Parts of a reduction that the weight memory holds twice, however tall the M tile is."""

from __future__ import annotations

from hw.config import AcceleratorConfig
from sw.bench import workloads
from sw.compiler.lower import linear
from sw.compiler.lower.lower import lower

SMALL = AcceleratorConfig(
    rows=16, columns=32, lanes=8, bus_bytes=4, activation_words=4096, weight_words=512,
    accumulator_words=256, residual_words=1024,
)  # fmt: skip


def test_tall_tiles_with_little_room_for_weights(monkeypatch):
    """No plan asks for more weights than there is room for, so none needs caution."""
    plans, plan_of = [], linear.plan_of

    def noted(context, step, x, layouts, forms):
        plan = plan_of(context, step, x, layouts, forms)
        words = max(form.total_words(1) / form.panels for form in forms)
        plans.append((context.caution, plan.k_panels * max(plan.panels) * words))
        return plan

    monkeypatch.setattr(linear, "plan_of", noted)
    program = lower(workloads.encoder(768, 12, 3072, 64), SMALL)
    assert [caution for caution, _ in plans] == [0] * len(plans)
    assert max(words for _, words in plans) <= SMALL.weight_words // 2
    weights = 4 * 768 * 768 + 2 * 768 * 3072
    assert program.estimated_cycles < 4 * weights / SMALL.bus_bytes  # each comes 4 times at most
