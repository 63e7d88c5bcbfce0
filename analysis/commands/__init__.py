"""The command line: one thin file per command, which says what can be asked, calls the library and
shows what came.
"""
