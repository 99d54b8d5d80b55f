"""Reads a report as a browser would: elements with attributes and text, tables as rows of cells."""

import re
from html.parser import HTMLParser

FETCHED = {"src", "srcset", "href", "action", "data", "poster", "background"}


class Page(HTMLParser):
    """Elements in order as (tag, attributes); tables as lists of rows of texts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.words = [], [], []
        self.inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True
        elif tag == "small" and self.inside:
            self.tables[-1][-1][-1] += " "

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in ("table", "th", "td"):
            self.inside = None

    def handle_data(self, data):
        self.words.append(data)
        if self.inside:
            self.tables[-1][-1][-1] += data

    def rows(self, *head):
        """Body rows of the first table whose head starts so, by their first cell."""
        for table in self.tables:
            if table and [cell.strip() for cell in table[0][: len(head)]] == list(head):
                return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table[1:]}
        raise AssertionError(f"no table {head}: {[t[0] for t in self.tables if t]}")

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def outside(text):
    """Addresses a browser would fetch, that are neither of this page nor data in it."""
    attributes = [pair for _, found in Page(text).elements for pair in found.items()]
    addresses = [value for name, value in attributes if name.removeprefix("xlink:") in FETCHED and value]
    styles = [value for name, value in attributes if name in ("style", "clip-path", "fill") and value]
    styles += re.findall(r"<style.*?>(.*?)</style>", text, re.S)
    addresses += [one for style in styles for one in re.findall(r"url\(([^)]*)\)", style)]
    return [one for one in addresses if not one.startswith(("#", "data:"))]
