"""Raw captures become shards; nothing here learns and nothing in a2fjax imports it."""
