"""A process that measures one rank and ends: `python -m rankwise.execution.profile.child RESULT < REQUEST`.

Peaks do not mix, because nothing else has ever run in it. The request is JSON on standard input; the answer is a
JSON file, either a measurement or the error to show.
"""

import json
import sys
from pathlib import Path

from rankwise.errors import RankwiseError
from rankwise.execution.profile.measure import measure_rank
from rankwise.execution.profile.values import ProfileSettings


def main() -> None:
    request = json.load(sys.stdin)
    answer = Path(sys.argv[1])
    try:
        measured = measure_rank(ProfileSettings.model_validate(request["settings"]), request["rank"])
    except RankwiseError as error:
        answer.write_text(json.dumps({"kind": type(error).__name__, "error": str(error)}), encoding="utf-8")
        return
    answer.write_text(measured.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
