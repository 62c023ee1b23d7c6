"""The example of docs/summary.md."""

import json
import re

from checkout import CHECKOUT

PAGE = CHECKOUT / "docs" / "summary.md"


def example() -> dict:
    return json.loads(re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])
