BEGIN TRANSACTION;
CREATE TABLE groups (id INTEGER PRIMARY KEY, digest TEXT UNIQUE, prompt TEXT, responses TEXT, source TEXT, extra TEXT);
INSERT INTO "groups" VALUES(1,'8138b8edac6ea1930361e84fd6dfcd17d033c26a2af1a3085a3cac6c52ce9c08:1','"Question 0?"','["Answer 0.0", "Answer 0.1"]','rows:0','{"level": 0}');
INSERT INTO "groups" VALUES(2,'fc0211d768708dc044c5396abf98357ba0a498c1e1f183009ace9864c1686a8d:1','"Question 1?"','["Answer 1.0", "Answer 1.1"]','rows:1','{"level": 1}');
INSERT INTO "groups" VALUES(3,'689642ab11e71fe039b5946f688fe173400c9fc8bad291304a868d7299f33f80:1','"Question 2?"','["Answer 2.0", "Answer 2.1"]','rows:2','{"level": 2}');
INSERT INTO "groups" VALUES(4,'60897c70f649ef25ad843d0d5351ea335a50d16f1432588b25eb9de071100733:1','"Known?"','["right", "wrong"]','gold:0','{}');
CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, admin INTEGER, token TEXT UNIQUE, UNIQUE (name, admin));
INSERT INTO "people" VALUES(1,'ada',0,'5e665c2529d23459848b46a03b9232de3c057d2a8635a613d4557f58d311f352');
INSERT INTO "people" VALUES(2,'bob',0,'e2017877ba08d58ae79f2e60f17f39ec08b50193c80020af07f2ec533bc35a24');
CREATE TABLE sessions (secret TEXT PRIMARY KEY, person INTEGER REFERENCES people, opened REAL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE shown (task INTEGER REFERENCES tasks, person INTEGER REFERENCES people, number INTEGER, state TEXT, at REAL,
    PRIMARY KEY (task, person), UNIQUE (person, number)) WITHOUT ROWID;
INSERT INTO "shown" VALUES(1,1,1,'voted',1700000000.0);
INSERT INTO "shown" VALUES(1,2,1,'voted',1700000000.0);
INSERT INTO "shown" VALUES(2,1,2,'open',1700000000.0);
INSERT INTO "shown" VALUES(2,2,2,'skipped',1700000000.0);
INSERT INTO "shown" VALUES(3,1,3,'voted',1700000000.0);
CREATE TABLE tasks (id INTEGER PRIMARY KEY, grp INTEGER REFERENCES groups, kind TEXT, members TEXT,
    gold TEXT, place REAL, taken INTEGER DEFAULT 0, UNIQUE (grp, kind, members));
INSERT INTO "tasks" VALUES(1,1,'compare','[0, 1]',NULL,0.0,2);
INSERT INTO "tasks" VALUES(2,2,'compare','[0, 1]',NULL,1.0,0);
INSERT INTO "tasks" VALUES(3,3,'compare','[0, 1]',NULL,2.0,1);
INSERT INTO "tasks" VALUES(4,4,'compare','[0, 1]','{"preference": -1}',0.0,0);
CREATE TABLE votes (id INTEGER PRIMARY KEY, person INTEGER REFERENCES people, task INTEGER REFERENCES tasks,
    revision INTEGER, verdict TEXT, answer TEXT, shown TEXT, note TEXT, seconds REAL, at REAL,
    UNIQUE (person, task, revision));
INSERT INTO "votes" VALUES(1,1,1,1,'vote','{"preference": -2}','[1, 0]','',0.0,1700000000.0);
INSERT INTO "votes" VALUES(2,1,2,1,'vote','{"preference": 3}','[0, 1]','',0.0,1700000000.0);
INSERT INTO "votes" VALUES(3,1,3,1,'vote','{"preference": 0}','[0, 1]','',0.0,1700000000.0);
INSERT INTO "votes" VALUES(4,2,1,1,'vote','{"preference": -1}','[1, 0]','',0.0,1700000000.0);
INSERT INTO "votes" VALUES(5,2,2,1,'skip','{}','[0, 1]','unclear',0.0,1700000000.0);
INSERT INTO "votes" VALUES(6,1,2,2,'undo','{}','[0, 1]','',0.0,1700000000.0);
CREATE INDEX tasks_by_place ON tasks (place, id);
CREATE INDEX tasks_by_taken ON tasks (taken) WHERE gold IS NULL;
CREATE INDEX gold_tasks ON tasks (id) WHERE gold IS NOT NULL;
CREATE TRIGGER renewed AFTER UPDATE OF token ON people
    BEGIN DELETE FROM sessions WHERE person = new.id; END;
CREATE INDEX shown_by_person ON shown (person, state);
CREATE INDEX votes_by_person ON votes (person, id);
CREATE VIEW latest AS SELECT * FROM votes WHERE NOT EXISTS
    (SELECT 1 FROM votes later WHERE later.person = votes.person AND later.task = votes.task AND later.revision > votes.revision);
CREATE TRIGGER counted AFTER INSERT ON votes BEGIN
    UPDATE shown SET state = CASE new.verdict WHEN 'vote' THEN 'voted' WHEN 'skip' THEN 'skipped' ELSE 'open' END,
        at = CASE new.verdict WHEN 'undo' THEN new.at ELSE at END WHERE task = new.task AND person = new.person;
    UPDATE tasks SET taken = (SELECT count(*) FROM shown WHERE task = new.task AND state = 'voted') WHERE id = new.task;
END;
CREATE TRIGGER kept BEFORE UPDATE ON votes BEGIN SELECT RAISE(ABORT, 'a vote is never written over'); END;
CREATE TRIGGER stays BEFORE DELETE ON votes BEGIN SELECT RAISE(ABORT, 'a vote is never deleted'); END;
COMMIT;
