"""Credentials take turns; one that is refused stays out and comes back by one request; others do not suffer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.credentials import Credentials

NOW = 1000.0


def picks(credentials: Credentials, now: float, times: int, model: str = "m") -> list[int | None]:
    return [credentials.pick(now, model) for _ in range(times)]


def test_they_take_turns() -> None:
    assert picks(Credentials(3), NOW, 6) == [0, 1, 2, 0, 1, 2]
    assert picks(Credentials(1), NOW, 3) == [0, 0, 0]
    assert picks(Credentials(0), NOW, 2) == [None, None]


def test_a_401_takes_one_out_for_all_models() -> None:
    credentials = Credentials(3)
    credentials.refused(1, 401, "m", NOW)
    assert picks(credentials, NOW, 4) == [0, 2, 0, 2]
    assert picks(credentials, NOW, 2, "other") == [0, 2]
    assert credentials.out(NOW) == [(1, "")]


def test_a_403_takes_one_out_for_that_model_alone() -> None:
    credentials = Credentials(2)
    credentials.refused(0, 403, "dear", NOW)
    assert picks(credentials, NOW, 3, "dear") == [1, 1, 1]
    assert picks(credentials, NOW, 2, "m") == [0, 1]
    credentials.refused(1, 403, "dear", NOW)
    assert picks(credentials, NOW, 2, "dear") == [None, None]
    assert picks(credentials, NOW, 2, "m") == [0, 1]
    assert credentials.out(NOW) == [(0, "dear"), (1, "dear")]


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_any_other_status_says_nothing_of_a_credential(status: int) -> None:
    credentials = Credentials(2)
    credentials.refused(0, status, "m", NOW)
    assert picks(credentials, NOW, 2) == [0, 1]


@pytest.mark.parametrize("status", [401, 403])
def test_one_that_is_out_is_tried_by_one_request_and_for_longer_each_time(status: int) -> None:
    credentials, now = Credentials(1), NOW
    credentials.refused(0, status, "m", now)
    for span in (60, 120, 240, 480, 900, 900):
        assert picks(credentials, now + span - 0.1, 2) == [None, None]
        now += span
        assert picks(credentials, now, 3) == [0, None, None]
        credentials.refused(0, status, "m", now)
    now += 900
    assert picks(credentials, now, 1) == [0]
    credentials.worked(0, "m", now)
    assert picks(credentials, now, 3) == [0, 0, 0]
    assert credentials.out(now) == []
    credentials.refused(0, status, "m", now)
    assert credentials.pick(now + 60, "m") == 0  # it begins anew


def test_refusals_of_what_began_before_do_not_add_up() -> None:
    credentials = Credentials(1)
    for seconds in range(50):
        credentials.refused(0, 401, "m", NOW + seconds)
    assert credentials.pick(NOW + 60, "m") == 0


def test_a_try_whose_client_left_gives_its_place_back() -> None:
    credentials = Credentials(1)
    credentials.refused(0, 401, "m", NOW)
    assert picks(credentials, NOW + 60, 2) == [0, None]
    credentials.forget(0, "m")
    assert picks(credentials, NOW + 61, 2) == [0, None]


def test_a_try_that_is_lost_does_not_block_for_ever() -> None:
    credentials = Credentials(1)
    credentials.refused(0, 401, "m", NOW)
    assert picks(credentials, NOW + 60, 2) == [0, None]
    assert picks(credentials, NOW + 119.9, 1) == [None]
    assert picks(credentials, NOW + 120, 2) == [0, None]


def test_a_403_says_that_the_credential_is_known() -> None:
    credentials = Credentials(1)
    credentials.refused(0, 401, "m", NOW)
    assert credentials.pick(NOW + 60, "dear") == 0
    credentials.refused(0, 403, "dear", NOW + 60)
    assert picks(credentials, NOW + 60, 2, "m") == [0, 0]
    assert picks(credentials, NOW + 60, 2, "dear") == [None, None]


def test_a_limit_closes_one_and_the_others_go_on() -> None:
    credentials = Credentials(2)
    credentials.limited(0, 10.0, NOW)
    credentials.limited(0, 1.0, NOW)  # does not shorten it
    assert picks(credentials, NOW + 9.9, 3) == [1, 1, 1]
    assert sorted(picks(credentials, NOW + 10.0, 2), key=str) == [0, 1]
    credentials.limited(0, 10.0, NOW + 20)
    credentials.limited(1, 5.0, NOW + 20)
    assert not credentials.has_unlimited(NOW + 20)
    assert credentials.pick(NOW + 20, "m") == 1, "where all are, the provider says so itself"
    assert credentials.out(NOW + 20) == []  # it is not refused


def test_where_there_is_but_one_the_provider_says_its_limit_itself() -> None:
    credentials = Credentials(1)
    credentials.limited(0, 10.0, NOW)
    assert picks(credentials, NOW, 2) == [0, 0]


def test_success_for_one_model_does_not_bring_back_another() -> None:
    credentials = Credentials(1)
    credentials.refused(0, 403, "dear", NOW)
    credentials.worked(0, "m", NOW)
    assert credentials.pick(NOW, "dear") is None


def test_names_that_clients_make_up_take_little_memory_and_nothing_from_others() -> None:
    credentials = Credentials(2)
    credentials.refused(1, 401, "m", NOW)
    for number in range(5000):
        credentials.refused(0, 403, f"{number} " + "x" * 100_000, NOW)
    assert len(credentials.out(NOW)) == 1001
    assert max(len(model) for _, model in credentials.out(NOW)) <= 256
    assert picks(credentials, NOW, 2) == [0, 0]
    assert credentials.pick(NOW, "4999 " + "x" * 100_000) is None


def test_the_list_shows_a_refused_one_until_it_works_and_a_model_while_it_is_out() -> None:
    credentials = Credentials(2)
    credentials.refused(1, 401, "m", NOW)
    credentials.refused(0, 403, "m", NOW)
    assert credentials.out(NOW + 59) == [(1, ""), (0, "m")]
    assert credentials.out(NOW + 3600) == [(1, "")]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pick", "pick", "pick", "401", "403", "429", "worked", "left", "time"]),
        st.integers(0, 2),
        st.sampled_from(["m", "dear"]),
        st.floats(0.1, 400),
    ),
    max_size=60,
)


@given(st.integers(1, 3), STEPS)
def test_none_is_given_that_is_out_and_each_is_given_in_the_end(
    count: int, steps: list[tuple[str, int, str, float]]
) -> None:
    credentials, now = Credentials(count), NOW
    refused_at: dict[tuple[int, str], float] = {}  # "" for all models
    for step, at, model, seconds in steps:
        index = at % count
        match step:
            case "pick":
                found = credentials.pick(now, model)
                if found is None:
                    continue
                for key in ((found, ""), (found, model)):
                    assert now >= refused_at.get(key, -1e9) + 60 - 1e-6, "given while it was out"
            case "401":
                credentials.refused(index, 401, model, now)
                if now >= refused_at.get((index, ""), -1e9) + 900:  # later ones may be of what began before
                    refused_at[index, ""] = now
            case "403":
                credentials.refused(index, 403, model, now)
                refused_at.pop((index, ""), None)
                if now >= refused_at.get((index, model), -1e9) + 900:
                    refused_at[index, model] = now
            case "429":
                credentials.limited(index, seconds, now)
            case "worked":
                credentials.worked(index, model, now)
                refused_at.pop((index, ""), None)
                refused_at.pop((index, model), None)
            case "left":
                credentials.forget(index, model)
            case "time":
                now += seconds
    now += 2000.0
    assert {credentials.pick(now, "m") for _ in range(count)} == set(range(count))
