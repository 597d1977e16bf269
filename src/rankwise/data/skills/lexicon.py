"""Small closed lists of common English words that the families draw from."""


def _words(text: str) -> list[str]:
    return text.split()


NAMES = _words(
    "Anna Ben Carl Dora Emma Frank George Helen Ivan Jane Kate Leo Mary Nick Olga Paul Rose Sam Tom Vera "
    "Will Adam Clara David Ella Henry Iris Jack Laura Mark Nora Peter"
)

NOUNS = _words(
    "apple ball bird boat book box bread bridge brush cake car cat chair clock cloud coat cow cup desk dog door dress "
    "drum duck egg farm fish flag flower fork frog garden gate glass goat gold grass hammer hat hill horse house ice "
    "island key king kitchen knife ladder lake lamp leaf letter lion map milk mirror moon mountain nail needle nest "
    "ocean orange paper pen pencil piano pig plant plate pocket pot queen rain ring river road rock roof room rope "
    "salt school sea seed sheep ship shoe silver snow soap song spoon star stone store street sugar sun table tail "
    "tent tiger tower town train tree village wall watch water wheel wind window wing winter wolf wood wool"
)

SHORT_NOUNS = [noun for noun in NOUNS if len(noun) <= 4]

COLOURS = _words("red blue green yellow black white brown pink grey purple")

ANIMALS = _words("cat dog horse cow pig goat sheep duck bird fish frog lion tiger wolf bear fox mouse rabbit snake hen")

TOWNS = _words("Rome Paris London Berlin Madrid Vienna Dublin Oslo Athens Cairo Lima Boston Prague Geneva Milan Tokyo")

JOBS = _words("doctor teacher farmer baker driver painter singer sailor nurse lawyer writer cook guard tailor")

OPPOSITES = [
    tuple(pair.split("/"))
    for pair in _words(
        "hot/cold big/small old/young up/down day/night open/closed wet/dry fast/slow hard/soft high/low light/dark "
        "long/short rich/poor full/empty true/false left/right early/late good/bad happy/sad strong/weak near/far "
        "first/last in/out black/white clean/dirty deep/shallow thick/thin wide/narrow sharp/dull loud/quiet "
        "sweet/bitter alive/dead begin/end buy/sell come/go give/take laugh/cry push/pull win/lose "
        "remember/forget love/hate friend/enemy north/south east/west summer/winter morning/evening brother/sister "
        "king/queen husband/wife above/below before/after always/never everything/nothing war/peace question/answer "
        "teacher/student arrive/leave accept/refuse increase/decrease expensive/cheap"
    )
]
"""Both directions are asked, so no word is in two pairs."""

CATEGORIES = {
    "animal": "cat dog horse cow sheep lion tiger wolf bear rabbit",
    "colour": "red blue green yellow black white brown pink grey purple",
    "fruit": "apple pear banana grape cherry lemon peach plum melon fig",
    "number": "one two three four five six seven eight nine ten",
    "job": "doctor teacher farmer baker driver painter singer sailor nurse lawyer",
    "tool": "hammer saw drill axe spade chisel pliers wrench rake shovel",
    "metal": "iron tin lead zinc nickel steel brass platinum titanium aluminium",
    "country": "France Spain Italy China Japan India Egypt Brazil Canada Mexico",
    "month": "January February March April June July September October November December",
    "vehicle": "car bus train ship boat lorry bicycle tram van taxi",
}

IRREGULAR_PLURALS = {
    "leaf": "leaves",
    "knife": "knives",
    "wolf": "wolves",
    "child": "children",
    "man": "men",
    "woman": "women",
    "foot": "feet",
    "tooth": "teeth",
    "mouse": "mice",
    "goose": "geese",
    "city": "cities",
    "lady": "ladies",
    "story": "stories",
    "baby": "babies",
    "box": "boxes",
    "dress": "dresses",
    "glass": "glasses",
    "brush": "brushes",
    "bush": "bushes",
    "church": "churches",
    "match": "matches",
    "fox": "foxes",
    "watch": "watches",
}

UNCOUNTABLE = _words(
    "bread fish gold grass ice milk rain salt sheep silver snow soap sugar water wind winter wood wool"
)

REGULAR_PLURALS = [noun for noun in NOUNS if noun not in IRREGULAR_PLURALS and noun not in UNCOUNTABLE]

WEEKDAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

MONTHS = _words("January February March April May June July August September October November December")

_ONES = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = _words("zero ten twenty thirty forty fifty sixty seventy eighty ninety")


def number_in_words(number: int) -> str:
    """0 to 9,999 in words: 342 -> `three hundred forty-two`."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    count, rest = divmod(number, size)
    return f"{number_in_words(count)} {name}" + (f" {number_in_words(rest)}" if rest else "")
