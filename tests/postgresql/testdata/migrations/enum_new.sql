--? verify: SELECT mood::text = 'calm' FROM ledger.moods
CREATE TYPE ledger.mood AS ENUM ('calm', 'angry');
CREATE TABLE ledger.moods (mood ledger.mood NOT NULL DEFAULT 'calm');
INSERT INTO ledger.moods DEFAULT VALUES;
