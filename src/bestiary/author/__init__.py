"""Authors of corpora, their filters, the judge, and the cost estimate."""
