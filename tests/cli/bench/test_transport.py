"""What the benchmarks move arrives; how fast is not a matter of tests."""

import pytest

from aa2c.cli.bench import transport


@pytest.mark.parametrize("copy_out", [False, True])
@pytest.mark.parametrize("payload_checksum", [False, True])
def test_records_cross_the_ring_and_none_is_dropped(copy_out, payload_checksum):
    rate = transport.ring_rate(
        2**14, 0.1, slots=2, copy_out=copy_out, payload_checksum=payload_checksum
    )
    assert rate > 0


def test_copies_and_pulls_are_counted():
    assert transport.memcpy_rate(2**14, 0.05) > 0
    assert transport.board_rate(2**14, 0.05) > 0


def test_a_producer_that_sends_nothing_is_told(monkeypatch):
    monkeypatch.setattr(transport, "START_S", 0.05)
    with pytest.raises(TimeoutError, match="sent nothing"):
        transport.measure(lambda: False, 1, 1.0)
