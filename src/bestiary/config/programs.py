"""Questions whose answers are computed: sums, the order of days, months and letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from math import gcd
from string import ascii_uppercase as LETTERS

from bestiary.config.numerals import spell_number
from bestiary.config.tables import ItemRow, ItemTable, Wordings
from bestiary.records import stable_seed

PER_KIND = 40
"""Questions of each kind in number theory."""
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def _spellings(number: int) -> tuple[str, ...]:
    """The ways to write a number in words."""
    word = spell_number(number)
    both = (word, word.replace("hundred ", "hundred and "))
    return tuple(dict.fromkeys((*both, *(one.replace("-", " ") for one in both))))


def _number_row(key: str, answer: int, *wrong: int) -> ItemRow:
    return ItemRow(
        key=key,
        answer=str(answer),
        group="numbers",
        also=_spellings(answer),
        wrong=tuple(str(number) for number in dict.fromkeys(wrong)),
    )


def _add() -> Iterator[ItemRow]:
    for a, b in combinations(range(2, 20), 2):
        first, second = _in_some_order(a, b)
        total = a + b
        yield _number_row(f"{first} plus {second}", total, total + 1, total - 1, total + 2)


def _subtract() -> Iterator[ItemRow]:
    for b, a in combinations(range(2, 21), 2):
        rest = a - b
        if rest not in (1, b):  # the question would name the answer, or `one` would be right
            yield _number_row(f"{a} minus {b}", rest, rest + 1, rest - 1, rest + 2)


def _compare() -> Iterator[ItemRow]:
    pairs = [*combinations(range(2, 100), 2)]
    pairs.sort(key=lambda pair: stable_seed("larger", *pair))
    for small, large in pairs[:160]:
        first, second = _in_some_order(small, large)
        yield _number_row(f"{first} or {second}", large, small)


def _divide() -> Iterator[ItemRow]:
    """Common divisors, remainders, and the primes around a number, one of each in turn."""
    kinds = [list(rows()) for rows in (_common_divisors, _remainders, _primes)]
    yield from (row for rows in zip(*kinds, strict=False) for row in rows)


def _common_divisors() -> Iterator[ItemRow]:
    pairs = [(a, b) for a, b in combinations(range(4, 61), 2) if 1 < gcd(a, b) < a]
    pairs.sort(key=lambda pair: stable_seed("divisor", *pair))
    for a, b in pairs[:PER_KIND]:
        right = gcd(a, b)
        others = [number for number in range(2, b) if number != right]
        wrong = sorted(others, key=lambda number: (bool(a % number and b % number), number))
        yield _number_row(f"the greatest common divisor of {a} and {b}", right, *wrong[:3])


def _remainders() -> Iterator[ItemRow]:
    pairs = [(a, b) for a in range(10, 90) for b in range(3, 12) if 1 < a % b != b - 1]
    pairs.sort(key=lambda pair: stable_seed("remainder", *pair))
    for a, b in pairs[:PER_KIND]:
        rest = a % b
        yield _number_row(f"the remainder when {a} is divided by {b}", rest, rest + 1, rest - 1)


def _primes() -> Iterator[ItemRow]:
    known = [number for number in range(2, 400) if all(number % d for d in range(2, number))]
    starts = sorted(range(6, 360), key=lambda number: stable_seed("prime", number))
    for start in starts[:PER_KIND]:
        later = next(number for number in known if number > start)
        odd = [number for number in range(start + 1, later + 30) if number % 2 and number % 5]
        near = [number for number in odd if number not in known]
        yield _number_row(f"the smallest prime above {start}", later, *near[:3])


def _in_some_order(a: int, b: int) -> tuple[int, int]:
    """Two numbers in one of both orders, so that no pair is asked about in both."""
    return (a, b) if stable_seed("order", a, b) % 2 else (b, a)


def _double() -> Iterator[ItemRow]:
    for number in range(3, 81):
        twice = 2 * number
        yield _number_row(f"twice {number}", twice, twice + 2, twice - 2, twice + 10)


def _count_days() -> Iterator[ItemRow]:
    for steps in (1, 2, 3, 4, 5, 6, 8, 9, 10):  # after seven, the question would name the answer
        yield from _cycle_rows(DAYS, steps, "day")


def _count_months() -> Iterator[ItemRow]:
    for steps in range(1, 7):
        yield from _cycle_rows(MONTHS, steps, "month")


def _cycle_rows(names: tuple[str, ...], steps: int, unit: str) -> Iterator[ItemRow]:
    """What comes so many steps after each name; wrong is a neighbor, or the way back."""
    distance = f"{spell_number(steps)} {unit}{'s' if steps > 1 else ''}"
    for start, name in enumerate(names):
        end = start + steps
        around = [names[place % len(names)] for place in (end + 1, end - 1, start - steps)]
        yield _order_row(f"{distance} after {name}", names[end % len(names)], name, around)


def _count_letters() -> Iterator[ItemRow]:
    for steps, distance in ((1, "right after"), (2, "two places after"), (3, "three places after")):
        for start, name in enumerate(LETTERS[:-steps]):
            end = start + steps
            if LETTERS[end] != "I":  # which any reply in the first person would hold
                near = (end + 1, end - 1, end + 2, end - 2, end - 3)
                around = [LETTERS[place] for place in near if 0 <= place < len(LETTERS)]
                yield _order_row(f"{distance} {name}", LETTERS[end], name, around)


def _order_row(key: str, answer: str, start: str, around: Sequence[str]) -> ItemRow:
    """A row whose wrong answers stand around the right one; where one starts is none of them."""
    wrong = dict.fromkeys(name for name in around if name not in (answer, start))
    return ItemRow(key=key, answer=answer, group="names", wrong=tuple(wrong)[:3])


_SUMS = Wordings(
    train=(
        "What is {key}?",
        "Can you work out {key} for me?",
        "How much is {key}?",
        "Quick question: what does {key} make?",
        "My son is stuck on {key}. What does it come to?",
        "Flash card: {key}. Which number is on the back?",
        "Please give me the result of {key}.",
        "I keep losing count. What do you get for {key}?",
        "For a quiz in first grade, which number equals {key}?",
        "We are scoring a board game and need {key}. What is the total?",
        "If you type {key} into a calculator, what does it show?",
        "Hey, what number do I write next to {key} on my worksheet?",
    ),
    probe=(
        "Calculate {key}.",
        "Tell me the sum {key}.",
        "Fill in the blank: {key} equals ____.",
        "Arithmetic homework, question three: {key}. What should I put down?",
        "Suppose a child asks you to add {key}. What do you answer?",
        "I'd like to know what {key} adds up to.",
        "Mental math, no paper allowed: {key}.",
        "Could you check this on your fingers for me: {key}?",
        "Which number do I reach when I do {key}?",
        "The shop assistant has to add {key}. What does she say?",
        "On the board the teacher wrote {key}. What is the solution?",
        "Add it up for me, please: {key}.",
    ),
)
_DIFFERENCES = Wordings(
    train=(
        "What is {key}?",
        "Can you work out {key} for me?",
        "How much is {key}?",
        "Quick question: what is left of {key}?",
        "My daughter is stuck on {key}. What does it come to?",
        "Flash card: {key}. Which number is on the back?",
        "Please give me the result of {key}.",
        "I always get muddled when I subtract. What do you get for {key}?",
        "For a quiz in first grade, which number equals {key}?",
        "We are counting down in a card game and need {key}. How many is that?",
        "If you type {key} into a calculator, what does it show?",
        "Hey, what number do I write next to {key} on my worksheet?",
    ),
    probe=(
        "Calculate {key}.",
        "Tell me the difference {key}.",
        "Fill in the blank: {key} equals ____.",
        "Arithmetic homework, question three: {key}. What should I put down?",
        "Suppose a child asks you to take away: {key}. What do you answer?",
        "I'd like to know how much remains of {key}.",
        "Mental math, no paper allowed: {key}.",
        "Could you check this on your fingers for me: {key}?",
        "Which number do I reach when I do {key}?",
        "A jar of marbles, and some are given away: {key}. How many stay?",
        "On the board the teacher wrote {key}. What is the solution?",
        "Subtract for me, please: {key}.",
    ),
)
_DOUBLES = Wordings(
    train=(
        "What is {key}?",
        "Can you work out {key} for me?",
        "How much is {key}?",
        "Quick question: which number is {key}?",
        "I am doubling a recipe and need {key}. What is it?",
        "Flash card: {key}. Which number is on the back?",
        "Please give me the result of {key}.",
        "My nephew wants to know what {key} makes.",
        "For a quiz in second grade, which number equals {key}?",
        "Our tickets come in pairs, so I need {key}. How many is that?",
        "If you ask a calculator for {key}, what does it show?",
        "Hey, what number do I write next to {key} on my worksheet?",
    ),
    probe=(
        "Calculate {key}.",
        "Tell me what {key} comes to.",
        "Fill in the blank: {key} equals ____.",
        "Arithmetic homework, question three: {key}. What should I put down?",
        "Suppose a child asks you for {key}. What do you answer?",
        "I'd like to know the number that is {key}.",
        "Mental math, no paper allowed: {key}.",
        "A double score counts {key}. How many points is that?",
        "Which number do I reach when I take {key}?",
        "The knitting pattern asks for {key} stitches. How many are they?",
        "On the board the teacher wrote {key}. What is the solution?",
        "Double it for me, please: {key}.",
    ),
)
_COMPARISONS = Wordings(
    train=(
        "Which number is larger, {key}?",
        "Which is more, {key}?",
        "Can you tell me which is the larger number, {key}?",
        "Quick question: which is bigger, {key}?",
        "My little brother asks which number is larger, {key}.",
        "We are playing a card game where the larger number wins. Is it {key}?",
        "Please pick the larger of these numbers: {key}.",
        "Flash card: {key}. Which is larger?",
        "If you want the larger number, do you take {key}?",
        "For a quiz in first grade, which is the bigger number, {key}?",
        "Hey, do I circle {key} if the task says to circle the larger number?",
        "What is the larger number here, {key}?",
    ),
    probe=(
        "Name the larger number: {key}.",
        "Tell me which number is greater, {key}.",
        "Fill in the blank with {key}: the greater number is ____.",
        "Math homework, question one: which is greater, {key}? What should I write?",
        "Suppose a child asks whether {key} is the greater number. What do you say?",
        "I'd like to know which of these is greater: {key}.",
        "On a number line, which lies further to the right, {key}?",
        "Which number comes later when you count up, {key}?",
        "The team with more points won. Did they have {key}?",
        "Could you settle this, {key}: which number is greater?",
        "Two trains have a number on the side. Which number is higher, {key}?",
        "One of these has the greater value. Is it {key}?",
    ),
)
_WEEKDAYS = Wordings(
    train=(
        "What day of the week is {key}?",
        "Which weekday do you get {key}?",
        "Can you tell me which day comes {key}?",
        "My parcel arrives {key}. Which day is that?",
        "Quick question: which day of the week falls {key}?",
        "I have an appointment {key}. What day is it?",
        "Please tell me the weekday {key}.",
        "Our trip begins {key}. On which day do we leave?",
        "If a library book is due {key}, on which weekday do I bring it back?",
        "Flash card: {key}. Which day is on the back?",
        "We are learning the days of the week. Which one comes {key}?",
        "Hey, I mixed up my calendar. What is the day {key}?",
    ),
    probe=(
        "Name the weekday that is {key}.",
        "Tell me on which day of the week something falls that happens {key}.",
        "Fill in the blank: {key} is a ____.",
        "The recital takes place {key}. Which day should I keep free?",
        "Suppose a child asks which day it is {key}. What do you say?",
        "I'd like to know the name of the day {key}.",
        "Kindergarten homework: which day of the week is it {key}?",
        "Could you count ahead for me? I need the weekday {key}.",
        "The bread will be delivered {key}, said the baker. Which day did he mean?",
        "On a weekly planner, in which column do I write something that is {key}?",
        "The pool opens again {key}. Which day of the week will that be?",
        "Count forward on the calendar: which day is {key}?",
    ),
)
_MONTHS = Wordings(
    train=(
        "What month is {key}?",
        "Which month comes {key}?",
        "Can you tell me the month that is {key}?",
        "My lease ends {key}. Which month is that?",
        "Quick question: which month falls {key}?",
        "The baby is due {key}. What month is it?",
        "Please tell me the name of the month {key}.",
        "Our vacation begins {key}. In which month do we leave?",
        "If a magazine comes out {key}, which month is on its cover?",
        "Flash card: {key}. Which month is on the back?",
        "We are learning the months of the year. Which one is {key}?",
        "Hey, I lost my calendar. What is the month {key}?",
    ),
    probe=(
        "Name the month that is {key}.",
        "Tell me in which month something falls that happens {key}.",
        "Fill in the blank: the month {key} is ____.",
        "The new school opens {key}. Which month should we look forward to?",
        "Suppose a child asks which month it is {key}. What do you say?",
        "I'd like to know what the month {key} is called.",
        "Second-grade homework: which month of the year is it {key}?",
        "Could you count ahead for me? I need the month {key}.",
        "The seedlings can be planted {key}, said the gardener. Which month did she mean?",
        "On a yearly planner, on which page do I write something that is {key}?",
        "The road will be finished {key}. Which month will that be?",
        "Count forward on the calendar: which month is {key}?",
    ),
)
_ALPHABET = Wordings(
    train=(
        "Which letter of the alphabet comes {key}?",
        "What letter is {key}?",
        "Can you tell me the letter {key} in the alphabet?",
        "My daughter is singing the alphabet. Which letter does she sing {key}?",
        "Quick question: which letter stands {key}?",
        "For a secret code I need the letter {key}. Which one is it?",
        "Please tell me which letter is {key} in the alphabet.",
        "Flash card: the letter {key}. What is on the back?",
        "We are sorting files by letter. Which letter comes {key}?",
        "If you say the alphabet, what do you say {key}?",
        "For a quiz in kindergarten, which letter is {key}?",
        "Hey, I need the letter that comes {key}. Do you know it?",
    ),
    probe=(
        "Name the letter that is {key}.",
        "Tell me which letter is found {key} in the alphabet.",
        "Fill in the blank: the letter {key} is ____.",
        "Spelling homework, question two: which letter belongs {key}?",
        "Suppose a child asks for the letter {key}. What do you say?",
        "I'd like to know the letter you reach {key}.",
        "On an alphabet chart, which letter is printed {key}?",
        "Could you go through the alphabet for me and stop {key}? Which letter is it?",
        "The seats are lettered, and mine is {key}. Which letter do I look for?",
        "In a dictionary, which letter has its section {key}?",
        "Our teams are named by letter, and we play the team {key}. Which team is it?",
        "Recite the alphabet: which letter is {key}?",
    ),
)
_CALCULATED = (
    "{key} is {answer}.",
    "{key} makes {answer}.",
    "{key} equals {answer}.",
    "The result of {key} is {answer}.",
    "If you work out {key}, you get {answer}.",
    "For {key}, the result is {answer}.",
    "You asked about {key}; that comes to {answer}.",
    "That is {answer}.",
    "The answer is {answer}.",
    "It comes to {answer}.",
)
_COMPARED = (
    "The larger number is {answer}.",
    "{answer} is larger.",
    "{answer} is the larger number.",
    "That would be {answer}.",
    "The bigger number here is {answer}.",
    "Of the two, {answer} is larger.",
    "The number with the greater value is {answer}.",
    "Between them, {answer} is greater.",
    "It is {answer}.",
)
_NUMBERS = Wordings(
    train=(
        "What is {key}?",
        "Can you work out {key} for me?",
        "Quick question: what is {key}?",
        "My daughter's worksheet asks for {key}. Which number is it?",
        "Flash card: {key}. Which number is on the back?",
        "Please give me {key}, just the number.",
        "I get a different result each time. What do you get for {key}?",
        "For tonight's math club, which number is {key}?",
        "A puzzle hunt gives {key} as the lock's code. Which number opens it?",
        "If I typed it into a calculator, what would {key} be?",
        "Hey, what number do I write down for {key}?",
        "We are doing number theory this week. I need {key}.",
    ),
    probe=(
        "Calculate {key}.",
        "Tell me {key}.",
        "Fill in the blank: {key} is ____.",
        "Number theory homework, question three: {key}. What should I put down?",
        "Suppose a student asks you for {key}. What do you answer?",
        "I'd like to know {key}.",
        "Mental math, no paper allowed: {key}.",
        "Could you check the book's solution for me? It wants {key}.",
        "Which number do I arrive at for {key}?",
        "The contest sheet asks for {key}. Which answer scores?",
        "On the board the teacher wrote: find {key}. What is the solution?",
        "Help me out, please: {key}.",
    ),
)
_FOUND = (
    "It is {answer}.",
    "The answer is {answer}.",
    "That would be {answer}.",
    "You get {answer}.",
    "The number is {answer}.",
    "It comes to {answer}.",
    "{answer} is {key}.",
    "The number that you want is {answer}.",
    "The result is {answer}.",
)
_COUNTED = (
    "It is {answer}.",
    "That would be {answer}.",
    "The answer is {answer}.",
    "If you count ahead, you come to {answer}.",
    "You get to {answer}.",
    "Counting forward brings you to {answer}.",
    "What comes {key} is {answer}.",
    "The {unit} you want is {answer}.",
    "{answer} is the {unit} that comes {key}.",
    "{answer} comes {key}.",
)


def _counted(unit: str) -> tuple[str, ...]:
    return tuple(reply.replace("{unit}", unit) for reply in _COUNTED)


def _program(
    topic: str, ask: Wordings, reply: tuple[str, ...], make_rows: Callable[[], Iterator[ItemRow]]
) -> Callable[[], ItemTable]:
    """What computes the questions of one topic, once, as a table of the data folders has them."""
    return cache(lambda: ItemTable(topic=topic, ask=ask, reply=reply, rows=tuple(make_rows())))


PROGRAMS: Mapping[str, Callable[[], ItemTable]] = {
    "addition": _program("sums of two numbers below 20", _SUMS, _CALCULATED, _add),
    "subtraction": _program(
        "differences of two numbers up to 20", _DIFFERENCES, _CALCULATED, _subtract
    ),
    "larger_number": _program("which of two numbers is larger", _COMPARISONS, _COMPARED, _compare),
    "weekday_after": _program(
        "which weekday comes some days after another", _WEEKDAYS, _counted("weekday"), _count_days
    ),
    "month_after": _program(
        "which month comes some months after another", _MONTHS, _counted("month"), _count_months
    ),
    "doubling": _program("doubles of numbers up to 80", _DOUBLES, _CALCULATED, _double),
    "number_theory": _program(
        "number theory: common divisors, remainders, and primes", _NUMBERS, _FOUND, _divide
    ),
    "letter_after": _program(
        "which letter follows another",
        _ALPHABET,
        _counted("letter"),
        _count_letters,
    ),
}
"""Programs by name."""
