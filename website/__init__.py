"""The documentation site: pages of docs/, of experiments/ and of the root, and reference pages made from the code.

`make docs` builds it into build/site; `website.hooks` is what mkdocs.yml calls.
"""
