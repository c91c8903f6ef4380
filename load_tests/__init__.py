"""Scripts that load a real server and print figures; the tests run short forms of them."""
