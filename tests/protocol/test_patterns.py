"""Java's regular expressions in Python's words."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.patterns import _TAME, compiled

MODELS = ServiceModels()


@pytest.mark.parametrize("service", SERVED)
def test_every_pattern_of_the_models_compiles_without_a_warning(service: str) -> None:
    model = MODELS[service]
    patterns = {model.shape_for(name).metadata.get("pattern") for name in model.shape_names} - {None}
    compiled.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pattern in patterns:
            compiled(pattern)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (r"\w+", ["abc_1"], ["größe", "٣"]),
        (r"\d+", ["12"], ["٣"]),
        (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", ["", "größe 日本 Ⅷ", "a/b=c@d"], ["a,b", "a\x00", "🙂"]),
        (r"\p{ASCII}*", ["~ \x00"], ["ä"]),
        (r"\A\S[\p{Print}]*\z", ["a b"], [" a", "a\n", "a\tb", ""]),
        (r"\P{L}+", ["12-"], ["a", "1é"]),
        (r"[\w-_]*", ["a-_"], ["a.b"]),
        (
            r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*",
            ["a\n🙂\U0010ffff"],
            ["\x00", "\uffff", "\ud800"],
        ),
        (r"[\u0009\u0020-\u007E\u10000-\u10FFFF]+", ["a\t🙂"], ["\x00"]),
        (r"([\p{L}_]*)${1,128}", ["ab_"], ["a b", "ab\n"]),
        (r"[!-.\[\]|&~]+", ["[]|&~-"], ["^"]),
        (r"[]a]+", ["]a"], ["b"]),
        (r"[a[b]+", ["a[b"], ["]"]),
    ],
)
def test_a_pattern_means_what_it_means_in_java(pattern: str, matching: list[str], others: list[str]) -> None:
    for text in matching:
        assert compiled(pattern).fullmatch(text), text
    for text in others:
        assert not compiled(pattern).fullmatch(text), text


@pytest.mark.parametrize("pattern", [r"\p{Nonsense}", r"[\P{L}]", "(", "a{2,1}"])
def test_what_has_no_words_in_python_is_told(pattern: str) -> None:
    with pytest.raises(re.error):
        compiled(pattern)


@pytest.mark.parametrize("pattern", sorted(_TAME))
def test_a_tamed_pattern_says_what_the_models_says(pattern: str) -> None:
    wild = re.compile(pattern, re.ASCII)
    prefix = "https://" if pattern.startswith("https") else ""
    alphabet = "a.-/ \t:*A\x01"
    for size in range(6):
        for characters in itertools.product(alphabet, repeat=size):
            text = prefix + "".join(characters)
            assert bool(wild.fullmatch(text)) == bool(compiled(pattern).fullmatch(text)), text


@pytest.mark.parametrize("pattern", sorted(_TAME))
@settings(max_examples=50, derandomize=True, database=None, deadline=None)
@given(data=st.data())
def test_what_a_wild_pattern_matches_its_tame_form_matches(pattern: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    assert compiled(pattern).fullmatch(text)


ATTACK = """
from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.patterns import compiled

models, longest = ServiceModels(), {}
for service in SERVED:
    for name in models[service].shape_names:
        metadata = models[service].shape_for(name).metadata
        if metadata.get("pattern"):
            limit = min(metadata.get("max") or 5000, 5000)
            longest[metadata["pattern"]] = max(limit, longest.get(metadata["pattern"], 0))
starts = ("", "arn:aws:sagemaker:us-east-1:123456789012:", "arn:aws-a-a", "s3://", "https://", "aws.partner/")
units = ("a", "A", "0", " ", "-", ".", "/", "_", ":", "*", "\\t", "=", "a-", "a.", "a ", "a/", "-a", "ab0")
for pattern, limit in longest.items():
    print(pattern, flush=True)
    for start in starts:
        for unit in units:
            for end in ("", "!", "\\x01"):
                compiled(pattern).fullmatch((start + unit * limit)[: limit - 1] + end)
"""


def test_no_pattern_takes_for_ever() -> None:
    """Texts that nearly match make some expressions try every way to split them, which would never end."""
    try:
        subprocess.run(
            [sys.executable, "-c", ATTACK], check=True, timeout=120, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired as expired:
        shown = (expired.stdout or b"").decode()
        pytest.fail(f"this one does: {shown.splitlines()[-1]}")
