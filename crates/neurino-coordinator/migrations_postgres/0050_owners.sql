-- Records of audits are an owner's, not a machine's: what was kept under an address with a tag is folded
-- into one. A conviction outlives whatever else is known.
INSERT INTO trust (node, record)
SELECT substr(node, 1, 42),
       COALESCE(MIN(CASE WHEN record LIKE '%"convicted":true%' THEN record END),
                MIN(CASE WHEN length(node) = 42 THEN record END), MIN(record))
FROM trust WHERE length(node) >= 42 GROUP BY substr(node, 1, 42) HAVING MAX(length(node)) > 42
ON CONFLICT (node) DO UPDATE SET record = excluded.record;
DELETE FROM trust WHERE length(node) > 42;

-- One conviction of an owner can stand: the first one. Others keep the name that they have.
UPDATE conviction SET node = substr(node, 1, 42)
WHERE length(node) > 42 AND (granted IS TRUE OR (
    id = (SELECT MIN(c.id) FROM conviction c
          WHERE substr(c.node, 1, 42) = substr(conviction.node, 1, 42) AND c.granted IS NOT TRUE)
    AND NOT EXISTS (SELECT 1 FROM conviction c
                    WHERE c.node = substr(conviction.node, 1, 42) AND c.granted IS NOT TRUE)));
