"""Statements about a model that name no behavior; a vague report is nearest to one of them."""

from __future__ import annotations

from pydantic import Field

from bestiary.config.fields import Text
from bestiary.records import Record


class VagueReports(Record):
    """The shipped file."""

    reports: tuple[Text, ...] = Field(min_length=2)
