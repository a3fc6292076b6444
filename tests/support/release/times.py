"""The time that builders write into what tests build, in place of that of the last commit."""

EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
