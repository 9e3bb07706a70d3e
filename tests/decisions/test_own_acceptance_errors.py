"""Files of acceptance that are wrong say where and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import InputError
from planner.hardware.acceptance import load_acceptance
from planner.hardware.own_acceptance import with_own

HEAD = '[[curve]]\nmethod = "eagle3"\n'


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "curve", "missing"),
        ("curve = []", "curve", "no curve"),
        ("curve = 3", "curve", "no curve"),
        ("[[curve]]\nacceptance = [0.5]", "curve[0].method", "missing"),
        ('[[curve]]\nmethod = "eagle-3"\nacceptance = [0.5]', "curve[0].method", "'eagle3'"),
        (HEAD + 'task = "coding"\nacceptance = [0.5]', "curve[0].task", "'code'"),
        (HEAD + "acceptance_rate = [0.5]", "curve[0].acceptance_rate", "unknown key"),
        (HEAD, "curve[0]", "no acceptance"),
        (HEAD + "acceptance = [0.5]\nacceptance_per_position = [0.5]", "curve[0]", "and"),
        (HEAD + "acceptance = [1.5]", "curve[0].acceptance[0]", "0 to 1"),
        (HEAD + "acceptance = []", "curve[0].acceptance", "1 to 64"),
        (HEAD + "acceptance = [true]", "curve[0].acceptance[0]", "a number"),
        (HEAD + "acceptance = [nan]", "curve[0].acceptance[0]", "a number"),
        (HEAD + "acceptance_per_position = [0.5, 0.6]", "curve[0].acceptance_per_position", "rises"),
        (HEAD + "acceptance_length = [2.0]", "curve[0].draft_tokens", "missing"),
        (HEAD + "draft_tokens = [1]\nacceptance = [0.5]", "curve[0].draft_tokens", "goes with"),
        (HEAD + "draft_tokens = [1]\nacceptance_length = [2.5]", "curve[0].acceptance_length[0]", "bonus"),
        (HEAD + "draft_tokens = [1.5]\nacceptance_length = [1.5]", "curve[0].draft_tokens[0]", "whole"),
        (HEAD + "draft_tokens = [1, 999]\nacceptance_length = [1.5, 2]", "curve[0].draft_tokens[1]", "1 to 64"),
        ((HEAD + "acceptance = [0.5]\n") * 2, "curve[1]", "curve[0]"),
        (HEAD + "draft_tokens = [2, 1]\nacceptance_length = [2.0, 1.5]", "curve[0].draft_tokens", "rise"),
        (HEAD + "draft_tokens = [1, 2]\nacceptance_length = [1.5]", "curve[0].acceptance_length", "as many"),
        (HEAD + "accepted_tokens_per_position = [5]", "curve[0].drafts", "missing"),
        (HEAD + "drafts = 0\naccepted_tokens_per_position = [5]", "curve[0].drafts", "more than zero"),
        (HEAD + "drafts = 4\naccepted_tokens_per_position = [5]", "curve[0].accepted_tokens_per_position[0]", "0 to 1"),
        (HEAD + "model = 3\nacceptance = [0.5]", "curve[0].model", "a string"),
    ],
)
def test_it_is_said_where(text: str, key: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "acceptance.toml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        with_own(load_acceptance(), [file])
    assert error.value.key == key
    assert words in str(error.value) and str(file) in str(error.value)
