"""Analytics: what tracked objects do: who is in a zone, who crossed a line, how many in which hour."""
