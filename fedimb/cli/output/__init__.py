"""What verbs return: typed records, printed as one JSON object with ``--json``. docs/json.md lists them all.

A handler returns one of these. Its return annotation is the verb's documentation: the schema and the page come from it.
Each verb imports the file of its records alone: building the classes of all of them takes as long as NumPy.
"""
