"""Receipts for people: sentences, the page, and a drill report's part of it. All from the JSON documents alone."""
