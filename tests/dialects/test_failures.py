from __future__ import annotations

import pytest

from proxy.dialects.failures import sentence
from proxy.outcome import Failure, Kind, Phase, Side


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_sentence_and_says_who_speaks(kind: Kind) -> None:
    said = sentence(Failure(Side.PROXY, Phase.ADMIT, kind))
    assert said.startswith("llm-proxy: ")
    assert len(said) > 20


def test_a_detail_is_said_instead() -> None:
    assert sentence(Failure(Side.UPSTREAM, Phase.CONNECT, Kind.RESET, "it hung up")) == "llm-proxy: it hung up"
