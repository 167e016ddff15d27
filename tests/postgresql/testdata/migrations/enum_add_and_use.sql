--? refused: nothing can before the value is committed
ALTER TYPE ledger.colour ADD VALUE 'grey';
CREATE TABLE ledger.paints (colour ledger.colour NOT NULL DEFAULT 'grey'::ledger.colour);
