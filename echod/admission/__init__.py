"""May this datagram be answered? The rules, the rate limits and the loop detector: decisions without effects."""
