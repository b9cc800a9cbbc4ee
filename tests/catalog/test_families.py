"""The table of families agrees with the dialects that exist."""

from __future__ import annotations

from proxy.catalog.families import AUTHS, FAMILIES
from proxy.dialects import DIALECTS


def test_every_dialect_is_spoken_by_some_family_and_exists() -> None:
    spoken = frozenset().union(*(family.dialects for family in FAMILIES.values()))
    assert spoken == set(DIALECTS) - {"plain"}


def test_every_way_to_carry_a_credential_is_known() -> None:
    assert {family.auth for family in FAMILIES.values()} <= set(AUTHS)


def test_only_openais_families_let_v1_stand_for_the_base() -> None:
    assert {name for name, family in FAMILIES.items() if not family.whole_path} == {"openai", "azure"}
