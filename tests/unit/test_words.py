"""Every reason that the source can give has its sentence, in English and in Spanish."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po

from agent.isolate.table import TABLE
from controller.calls import CALLS, UNKNOWN
from failover.judge import MOVING, Kind
from fleet.model import Why
from runtime.sentences import SENTENCES, VERDICTS, WORDS, sentences
from runtime.words import LANGUAGES, LOCALE, explain, placeholders

ROOT = Path(__file__).parents[2]
ROOMS = ("agent", "controller", "failover", "fleet")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MAKERS = {"Why", "_why"}
VERBS = {"move", "bring-home"}
# Codes that are not written beside `Why(`, by where they are used; each must be known here.
ELSEWHERE = {
    ("agent/isolate/climb.py", "row.code"): {row.code for row in TABLE.values()},
    ("controller/calls.py", "call.said"): {call.said for call in (*CALLS.values(), UNKNOWN)},
    ("controller/lead.py", "guarded.proposal.cause.verdict"): {k.value for k in MOVING} | {"drain"},
    ("controller/commands.py", "verb"): VERBS,
    ("controller/commands.py", "incidents.DECIDED"): {"decided"},
    ("controller/declare.py", "code"): {"undo-conflict", "undo-leaves"},
    ("controller/incidents.py", "code"): {"decided", "observed", "held"},
    ("controller/api/answers.py", "code"): set(),  # says again what was said
    ("controller/api/mine.py", "why.code"): set(),  # says again what was said
    ("controller/dnswire.py", "code"): {"dns-refused", "dns-not-served", "dns-server-failed"},
}


def reasons() -> Iterator[tuple[str, ast.AST, ast.Call]]:
    """Every call that makes a reason: its file, the function (or module) around it, the call."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ast.parse(path.read_text())
            functions = [n for n in ast.walk(module) if isinstance(n, FUNCTIONS)]
            found = {call: function for function in functions for call in makers(function)}
            for call in makers(module):
                yield str(path.relative_to(ROOT)), found.get(call, module), call


def makers(around: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(around):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in MAKERS:
            yield node


def codes(file: str, around: ast.AST, call: ast.Call) -> set[str]:
    first = call.args[0]
    if isinstance(first, ast.Constant):
        return {str(first.value)}
    if getattr(around, "name", "") in MAKERS:
        return set()  # the maker itself: its callers are looked at
    return ELSEWHERE[file, ast.unparse(first)]


def names(around: ast.AST, call: ast.Call) -> set[str]:
    """Every name that the reason's values can have: of its own literal, or of what its function builds."""
    known: set[object] = {keyword.arg for keyword in call.keywords if keyword.arg}
    if getattr(call.func, "id", "") == "_why":
        known |= {"server", "zone"}
    for node in ast.walk(around):
        if isinstance(node, ast.Dict):
            known |= {k.value for k in node.keys if isinstance(k, ast.Constant)}
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            known.add(str(node.slice.value))
    return {str(name) for name in known}


@pytest.fixture(scope="module")
def spanish() -> Catalog:
    with (LOCALE / "es" / "LC_MESSAGES" / "relevo.po").open("rb") as file:
        return read_po(file, "es")


def translated(catalogue: Catalog, sentence: str) -> str:
    message = catalogue.get(sentence)
    assert message is not None and message.string, f"no Spanish for: {sentence}"
    assert isinstance(message.string, str)
    return message.string


def test_every_code_has_a_sentence() -> None:
    """Whatever reason the source can give, the catalogue can say it."""
    used = {code for file, around, call in reasons() for code in codes(file, around, call)}
    assert len(used) > 50, "the walk found too little to test anything"
    assert used - SENTENCES.keys() == set()


def test_no_sentence_is_left_over() -> None:
    """A sentence that nothing says is a code that was renamed."""
    used = {code for file, around, call in reasons() for code in codes(file, around, call)}
    assert SENTENCES.keys() - used == set()


def test_a_sentence_speaks_only_of_values_that_are_given() -> None:
    """The last sentence of a code can be said from what each of its makers puts in."""
    for file, around, call in reasons():
        for code in codes(file, around, call):
            missing = placeholders(sentences(code)[-1]) - names(around, call)
            assert not missing, f"{file}:{call.lineno}: {code} is not given {sorted(missing)}"


def test_every_sentence_is_in_spanish_with_the_same_values(spanish: Catalog) -> None:
    """Nothing is lost in translation, and nothing is left in English."""
    for code in SENTENCES:
        for sentence in sentences(code):
            assert placeholders(translated(spanish, sentence)) == placeholders(sentence), code
            assert translated(spanish, sentence) != sentence
    for words in WORDS.values():
        assert all(translated(spanish, word) for word in words.values())
    assert VERDICTS.keys() == {kind.value for kind in Kind} | {"drain"}


def test_the_translation_says_nothing_that_english_does_not(spanish: Catalog) -> None:
    """A message that no English sentence asks for is an old one."""
    english = {sentence for code in SENTENCES for sentence in sentences(code)}
    english |= {word for words in WORDS.values() for word in words.values()}
    assert {message.id for message in spanish if message.id} - english == set()


@pytest.mark.parametrize("language", [*LANGUAGES, "fr", "", "../../etc"])
def test_explaining_never_fails(language: str) -> None:
    """Unknown codes, missing values, braces in values and unknown languages all give some text."""
    assert explain(Why("no-such-code", {"a": 1}), language) == "no-such-code: a = 1"
    assert "brake" in explain(Why("brake", {"spent": 1}), language)
    assert "{0} {x!r}" in explain(Why("drained", {"owner": "ana", "reason": "{0} {x!r}"}), language)


def test_a_reason_is_said_in_the_readers_language() -> None:
    """The same reason, with its verdict as a word, in English and in Spanish."""
    why = Why("standby-not-up", {"host": "mx1-web-02", "verdict": "dead"})
    assert explain(why) == "mx1-web-02 is dead, not up."
    assert explain(why, "es") == "mx1-web-02 no está en marcha: muerto."


def test_a_time_that_never_began_is_not_told() -> None:
    """A host that was never heard is not said to be silent for -1 s."""
    why = Why("silent-and-no-answers", {"silence_s": -1, "witnesses": 2})
    assert explain(why) == "It is silent, and no witness gets an answer (witnesses: 2)."
