"""A package, so that its fixtures of scope "package" end with it: Playwright keeps an event loop
running, which the tests after these must not meet.
"""
