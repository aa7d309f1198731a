"""Random numbers, the transaction mix, the schedule and the latencies of workloads, without a server."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier.errors import UsageError
from applier.workload import WORKLOADS, parameters_from_text, workload_named
from applier.workload.latency import LatencyHistogram
from applier.workload.model import Call
from applier.workload.pacing import Schedule, share
from applier.workload.randomness import Random, last_name, non_uniform_range
from applier.workload.tpcc.calls import TerminalCalls, home_warehouses
from applier.workload.tpcc.procedures import LINE_LENGTH
from applier.workload.tpcc.settings import NonUniform, TpccSettings

seeds = st.integers(0, 2**32)


def calls(settings: TpccSettings, count: int, terminal: int = 0) -> list[Call]:
    return list(islice(TerminalCalls(settings, terminal, run=1), count))


def arguments(call: Call) -> list[str]:
    return [text.strip("'") for text in call.sql.partition("(")[2].removesuffix(")").split(",")]


# --- random numbers ---------------------------------------------------------------------------------------


@given(seed=seeds)
def test_the_same_stream_of_the_same_seed_gives_the_same_numbers(seed: int) -> None:
    first, again, other = (Random(seed % 3, "run", name) for name in (seed, seed, seed + 1))
    numbers = [[stream.number(0, 10**9) for _ in range(5)] for stream in (first, again, other)]
    assert numbers[0] == numbers[1] != numbers[2]


def test_non_uniform_numbers_are_skewed_and_cover_their_range() -> None:
    random = Random(7, "nurand")
    drawn = Counter(random.non_uniform(127, 33, 1, 300) for _ in range(60_000))
    assert min(drawn) == 1
    assert max(drawn) == 300
    # Each value is as likely as the number of pairs that give it: the definition, counted out.
    expected = Counter(((a | x) + 33) % 300 + 1 for a in range(128) for x in range(1, 301))
    hottest = {value for value, _ in expected.most_common(30)}
    share_expected = sum(expected[value] for value in hottest) / expected.total()
    share_drawn = sum(drawn[value] for value in hottest) / drawn.total()
    assert share_drawn == pytest.approx(share_expected, abs=0.01)
    assert share_expected > 0.2  # a tenth of the customers; uniform would be 0.1


def test_last_names_are_those_of_the_specification() -> None:
    assert last_name(371) == "PRICALLYOUGHT"
    assert last_name(40) == "BARPRESBAR"
    assert len({last_name(number) for number in range(1000)}) == 1000


def test_the_constant_a_is_the_specified_one_at_full_size_and_shrinks_with_it() -> None:
    assert [non_uniform_range(a, full, full) for a, full in ((255, 1000), (1023, 3000), (8191, 100_000))] == [
        255,
        1023,
        8191,
    ]
    assert non_uniform_range(8191, 100_000, 10_000) == 511
    assert non_uniform_range(1023, 3000, 10) == 1


@given(seed=seeds)
def test_the_constants_for_last_names_keep_their_distance(seed: int) -> None:
    constants = NonUniform.of(TpccSettings(seed=seed))
    assert 0 <= constants.name_c_run <= 255
    distance = abs(constants.name_c_run - constants.name_c_load)
    assert 65 <= distance <= 119
    assert distance not in (96, 112)


@given(groups=st.integers(1, 10), seed=st.integers(0, 3))
def test_digit_groups_look_like_those_of_sysbench(groups: int, seed: int) -> None:
    text = Random(seed, "text").digit_groups(groups)
    assert re.fullmatch(r"\d{11}" + r"-\d{11}" * (groups - 1), text)


@given(low=st.integers(0, 200), extra=st.integers(0, 300))
def test_text_has_the_asked_length(low: int, extra: int) -> None:
    text = Random(1, low, extra).text(low, low + extra)
    assert low <= len(text) <= low + extra
    assert text == "" or text.isalnum()


# --- the transactions of TPC-C ------------------------------------------------------------------------------


def test_every_hundred_transactions_hold_the_standard_mix() -> None:
    for start in range(0, 1000, 100):
        kinds = Counter(
            call.kind.removesuffix("_rolled_back")
            for call in calls(TpccSettings(), 1000)[start : start + 100]
        )
        assert kinds == {"new_order": 45, "payment": 43, "order_status": 4, "delivery": 4, "stock_level": 4}


def test_one_new_order_in_a_hundred_rolls_back_on_an_unknown_item() -> None:
    settings = TpccSettings(scale=0.1)
    orders = [call for call in calls(settings, 20_000) if call.kind.startswith("new_order")]
    rolled_back = [call for call in orders if call.kind == "new_order_rolled_back"]
    assert len(rolled_back) / len(orders) == pytest.approx(0.01, abs=0.004)
    for call in orders:
        digits = arguments(call)[5]
        items = [int(digits[at : at + 6]) for at in range(0, len(digits), LINE_LENGTH)]
        assert (items[-1] == settings.items + 1) == (call in rolled_back)
        assert all(1 <= item <= settings.items for item in items[:-1])


def test_orders_have_5_to_15_lines_of_1_to_10_pieces_and_one_line_in_a_hundred_is_remote() -> None:
    lines = remote = 0
    for call in calls(TpccSettings(warehouses=4, terminals=4), 20_000, terminal=2):
        if not call.kind.startswith("new_order"):
            continue
        home, district, customer, count, all_local, digits, _ = arguments(call)
        assert home == "3"
        assert 1 <= int(district) <= 10
        assert 1 <= int(customer) <= 3000
        assert 5 <= int(count) <= 15
        assert len(digits) == int(count) * LINE_LENGTH
        suppliers = [int(digits[at + 6 : at + 11]) for at in range(0, len(digits), LINE_LENGTH)]
        assert all(1 <= int(digits[at + 11 : at + 13]) <= 10 for at in range(0, len(digits), LINE_LENGTH))
        assert all_local == str(int(all(supplier == 3 for supplier in suppliers)))
        lines += len(suppliers)
        remote += sum(supplier != 3 for supplier in suppliers)
    assert remote / lines == pytest.approx(0.01, abs=0.002)


def test_fifteen_payments_in_a_hundred_are_remote_and_sixty_name_the_customer_by_last_name() -> None:
    payments = [
        arguments(call)
        for call in calls(TpccSettings(warehouses=4, terminals=4), 20_000)
        if call.kind == "payment"
    ]
    assert sum(payment[0] != payment[2] for payment in payments) / len(payments) == pytest.approx(
        0.15, abs=0.02
    )
    assert sum(payment[4] == "0" for payment in payments) / len(payments) == pytest.approx(0.60, abs=0.02)
    assert all((payment[4] == "0") == (payment[5] != "") for payment in payments)


def test_one_warehouse_has_nothing_remote() -> None:
    for call in calls(TpccSettings(warehouses=1), 3000):
        if call.kind == "payment":
            assert arguments(call)[0] == arguments(call)[2] == "1"


@given(terminals=st.integers(1, 40), warehouses=st.integers(1, 40))
def test_every_warehouse_has_a_terminal_and_every_terminal_a_warehouse(
    terminals: int, warehouses: int
) -> None:
    homes = [home_warehouses(terminal, terminals, warehouses) for terminal in range(terminals)]
    assert all(homes)
    assert set().union(*homes) == set(range(1, warehouses + 1))


# --- parameters ---------------------------------------------------------------------------------------------


def test_parameters_arrive_in_the_settings_with_their_types() -> None:
    typed = parameters_from_text("large", {"rows-per-transaction": "500", "scale": "0.5", "replace": "yes"})
    assert typed == {"rows_per_transaction": 500, "scale": 0.5, "replace": True}
    settings = workload_named("large", **typed).settings
    assert settings.scale == 0.5
    assert settings.replace


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_parameter_that_the_workload_does_not_have_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"the workload {name} has no parameter no-such-thing"):
        workload_named(name, no_such_thing=1)
    assert workload_named(name).name == name


@pytest.mark.parametrize(
    "parameters",
    [{"terminals": 0}, {"scale": 0.0}, {"scale": -1.0}, {"warehouses": 0}, {"database": ""}, {"scale": 2.0}],
)
def test_values_out_of_range_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        workload_named("tpcc", **parameters)


def test_text_of_the_wrong_type_and_unknown_workloads_are_refused() -> None:
    with pytest.raises(UsageError, match="rows=many"):
        parameters_from_text("oltp", {"rows": "many"})
    with pytest.raises(UsageError, match="there is no workload 'tpc-c'"):
        workload_named("tpc-c")


# --- schedule -------------------------------------------------------------------------------------------


@given(rate=st.floats(0.1, 1e6), terminals=st.integers(1, 64), count=st.integers(0, 500))
def test_all_terminals_together_keep_the_rate(rate: float, terminals: int, count: int) -> None:
    schedule = Schedule(rate, terminals)
    due = sorted(
        schedule.due_seconds(terminal, number)
        for terminal in range(terminals)
        for number in range(share(count, terminal, terminals))
    )
    assert due == [pytest.approx(number / rate) for number in range(count)]


@given(transactions=st.integers(0, 10_000), terminals=st.integers(1, 64))
def test_shares_add_up_and_differ_by_one_at_most(transactions: int, terminals: int) -> None:
    shares = [share(transactions, terminal, terminals) for terminal in range(terminals)]
    assert sum(shares) == transactions
    assert max(shares) - min(shares) <= 1


# --- latencies ------------------------------------------------------------------------------------------


@given(
    latencies=st.lists(st.integers(0, 10**10), min_size=1, max_size=200),
    percent=st.sampled_from([50.0, 95.0, 99.0, 100.0]),
    cut=st.integers(0, 200),
)
def test_percentiles_are_at_most_three_percent_too_high(
    latencies: list[int], percent: float, cut: int
) -> None:
    parts = LatencyHistogram(), LatencyHistogram()
    for position, latency in enumerate(latencies):
        parts[position < cut].record(latency)
    merged = LatencyHistogram()
    for part in parts:
        merged.add(part)
    exact = sorted(latencies)[max(0, -(-len(latencies) * int(percent) // 100) - 1)]
    assert exact <= merged.percentile(percent) <= exact * 33 / 32
    assert merged.highest == max(latencies)
