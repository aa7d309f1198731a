"""A web shop with every column type of MySQL 9.7 and every kind of key, index, and code."""

from __future__ import annotations

import random
from collections.abc import Iterator

from applier.sandbox import Server
from tests.clients import ACCOUNT
from tests.databases import Database, many, run_all
from tests.every_type import COLUMNS

# A DECIMAL that a function put into a JSON document is a plain number in its text.
TYPES = tuple((name, kind, values) for name, kind, values in COLUMNS if name != "js_opaque")
COLLATIONS = (
    "utf8mb4_0900_ai_ci",
    "utf8mb4_bin",
    "utf8mb4_general_ci",
    "utf8mb4_0900_as_cs",
    "latin1_german2_ci",
)

TABLES = (
    "CREATE TABLE customers (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, email VARCHAR(80) NOT NULL,"
    " name VARCHAR(60) COLLATE utf8mb4_0900_as_cs, segment ENUM('', 'retail', 'trade'), likes SET('a', 'b', 'c'),"
    " flags BIT(9), born DATE, seen TIMESTAMP(6) NULL, place POINT NOT NULL SRID 4326, taste VECTOR(4), photo BLOB,"
    " profile JSON, secret VARBINARY(20) INVISIBLE, initial CHAR(1) AS (LEFT(name, 1)) VIRTUAL,"
    " domain VARCHAR(80) AS (SUBSTRING_INDEX(email, '@', -1)) STORED, UNIQUE (email), KEY (domain), KEY (initial),"
    " KEY lower_name ((LOWER(name))), KEY phones ((CAST(profile->'$.phones' AS UNSIGNED ARRAY))), SPATIAL KEY (place))",
    "CREATE TABLE categories (name VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german2_ci PRIMARY KEY,"
    " parent VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german2_ci,"
    " FOREIGN KEY (parent) REFERENCES categories (name) ON DELETE SET NULL)",
    "CREATE TABLE products (sku VARCHAR(20) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY,"
    " category VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german2_ci, price DECIMAL(12, 4) NOT NULL, weight FLOAT,"
    " rating DOUBLE, stock INT NOT NULL, gross DECIMAL(12, 2) AS (price * 1.19) STORED, details MEDIUMTEXT,"
    " attributes JSON, FULLTEXT KEY (details), KEY (category),"
    " FOREIGN KEY (category) REFERENCES categories (name) ON UPDATE CASCADE ON DELETE SET NULL)",
    "CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, customer BIGINT UNSIGNED, placed DATETIME(3) NOT NULL,"
    " state ENUM('open', 'paid', 'sent') NOT NULL DEFAULT 'open', total DECIMAL(14, 2), KEY (state, placed),"
    " FOREIGN KEY (customer) REFERENCES customers (id) ON DELETE CASCADE)",
    "CREATE TABLE order_lines (orders BIGINT, line SMALLINT, sku VARCHAR(20) COLLATE utf8mb4_0900_ai_ci, amount INT,"
    " PRIMARY KEY (orders, line), FOREIGN KEY (orders) REFERENCES orders (id) ON DELETE CASCADE,"
    " FOREIGN KEY (sku) REFERENCES products (sku) ON UPDATE CASCADE)",
    "CREATE TABLE page_views (at DATETIME(6), url VARCHAR(200), session INT)",
    "CREATE TABLE sessions (id INT, day DATE NOT NULL, data TINYBLOB, PRIMARY KEY (id, day)) PARTITION BY RANGE"
    " COLUMNS (day) (PARTITION old VALUES LESS THAN ('2024-01-01'), PARTITION new VALUES LESS THAN (MAXVALUE))",
    "SET SESSION sql_generate_invisible_primary_key = ON",
    "CREATE TABLE carts (session INT, sku VARCHAR(20), KEY (session))",
    "SET SESSION sql_generate_invisible_primary_key = OFF",
    *(
        f"CREATE TABLE tags_{number} (tag VARCHAR(40) CHARACTER SET {name.split('_')[0]} COLLATE {name} PRIMARY KEY,"
        " used INT)"
        for number, name in enumerate(COLLATIONS)
    ),
    "CREATE TABLE everything (id INT PRIMARY KEY, "
    + ", ".join(f"{name} {kind} {'' if 'NULL' in kind else 'NULL'}" for name, kind, _ in TYPES)
    + ")",
)

CODE = (
    f"CREATE DEFINER = {ACCOUNT}@'%' FUNCTION taxed(p DECIMAL(12, 4)) RETURNS DECIMAL(12, 2) DETERMINISTIC"
    " RETURN p * 1.19",
    f"CREATE DEFINER = {ACCOUNT}@'%' PROCEDURE pay(IN o BIGINT) UPDATE orders SET state = 'paid' WHERE id = o",
    f"CREATE DEFINER = {ACCOUNT}@'%' VIEW offers AS SELECT sku, taxed(price) AS `günstig` FROM products"
    " WHERE stock > 0",
    f"CREATE DEFINER = {ACCOUNT}@'%' VIEW best_offers AS SELECT * FROM offers WHERE `günstig` < 10",
    f"CREATE DEFINER = {ACCOUNT}@'%' TRIGGER watch_stock AFTER UPDATE ON products FOR EACH ROW"
    " INSERT INTO page_views VALUES (NOW(6), CONCAT('stock of ', NEW.sku), NEW.stock)",
    f"CREATE DEFINER = {ACCOUNT}@'%' TRIGGER default_total BEFORE INSERT ON orders FOR EACH ROW"
    " SET NEW.total = COALESCE(NEW.total, 0)",
    f"CREATE DEFINER = {ACCOUNT}@'%' EVENT tick ON SCHEDULE EVERY 1 SECOND DO"
    " INSERT INTO page_views VALUES (NOW(6), 'tick', 0)",
)


def web(customers: int) -> Database:
    """Ten page views, two orders, three lines to each customer."""
    return Database(
        ("web",), lambda server: _fill(server, customers), lambda one: _transactions(one, customers)
    )


def _fill(server: Server, customers: int) -> None:
    products = max(20, customers // 10)
    run_all(
        server,
        (
            "SET SESSION sql_mode = ''",
            "CREATE DATABASE web CHARACTER SET utf8mb4",
            "USE web",
            *TABLES,
            *many(
                "customers",
                "email, name, segment, likes, flags, born, seen, place, taste, photo, profile, secret",
                "CONCAT('user', n, '@ex', n % 50, '.org'), CONCAT(ELT(1 + n % 3, 'Ärger', 'müller', 'Zoë'), n),"
                " 1 + n % 3, n % 8, n % 512, '1950-01-01' + INTERVAL n % 20000 DAY, '2024-01-01' + INTERVAL n SECOND,"
                " ST_GeomFromText(CONCAT('POINT(', n % 80, ' ', n % 170, ')'), 4326),"
                " STRING_TO_VECTOR(CONCAT('[', n, ',', n / 7, ',-1e-3,0]')), REPEAT(CHAR(n % 256), n % 300),"
                " JSON_OBJECT('phones', JSON_ARRAY(n, n + 1), 'ü', REPEAT('é', n % 40), 'n', NULL),"
                " UNHEX(SHA2(n, 224))",
                customers,
            ),
            *many("categories", "name", "CONCAT('Kategorie ß', n)", 20),
            *many(
                "products",
                "sku, category, price, weight, rating, stock, details, attributes",
                "CONCAT('Art-', n), CONCAT('Kategorie ß', 1 + n % 20), n / 3, n / 7, n / 9e7, 100,"
                " REPEAT('some words ', n % 90), IF(n % 5, JSON_OBJECT('size', n, 'deep',"
                " JSON_ARRAY(true, 1.5e300, '')), NULL)",
                products,
            ),
            *many(
                "orders",
                "customer, placed, state, total",
                f"1 + n % {customers}, '2024-01-01' + INTERVAL n SECOND, 1 + n % 3, n / 100",
                customers * 2,
            ),
            *(
                f"INSERT INTO order_lines SELECT id, {line}, CONCAT('Art-', 1 + (id + {line}) % {products}), {line}"
                " FROM orders"
                for line in (1, 2)
            ),
            *many("page_views", "at, url, session", "NOW(6), CONCAT('/', n % 99), n % 1000", customers * 5),
            *many(
                "sessions",
                "id, day, data",
                "n, '2023-12-01' + INTERVAL n % 60 DAY, UNHEX(SHA2(n, 256))",
                customers,
            ),
            *many("carts", "session, sku", "n % 1000, CONCAT('Art-', n % 50)", customers),
            *(
                statement
                for number in range(len(COLLATIONS))
                for statement in many(
                    f"tags_{number}",
                    "tag, used",
                    "CONCAT(ELT(1 + n % 3, 'É', 'ß ', 'a\\\\'), n), n",
                    customers // 10,
                )
            ),
            *_everything(),
            *CODE,
        ),
    )


def _everything() -> Iterator[str]:
    for row in range(3):
        yield f"INSERT INTO everything VALUES ({row + 1}, {', '.join(values[row] for _, _, values in TYPES)})"
    yield f"INSERT INTO everything (id) VALUES {', '.join(f'({number})' for number in range(4, 40))}"


def _transactions(client: int, customers: int) -> Iterator[tuple[str, ...]]:
    chance = random.Random(client)
    yield ("SET SESSION sql_mode = ''",)
    while True:
        customer, sku = chance.randint(1, customers), f"'art-{chance.randint(1, 20)}'"
        yield (
            f"INSERT INTO web.orders (customer, placed) SELECT id, NOW(3) FROM web.customers WHERE id = {customer}",
            "SET @order = LAST_INSERT_ID()",
            f"INSERT IGNORE INTO web.order_lines SELECT @order, 1, sku, 3 FROM web.products WHERE sku = {sku}",
            f"UPDATE web.products SET stock = stock - 3, rating = rating + 0.1 WHERE sku = {sku}",
        )
        yield (f"CALL web.pay({chance.randint(1, customers * 2)})",)
        yield (
            f"INSERT INTO web.page_views VALUES (NOW(6), '/ü', {customer})",
            f"INSERT INTO web.carts (session, sku) VALUES ({customer}, {sku})",
            f"DELETE FROM web.carts WHERE session = {chance.randint(0, 999)} LIMIT 2",
        )
        yield (
            f"UPDATE web.customers SET profile = JSON_SET(profile, '$.phones', JSON_ARRAY({chance.randint(1, 9999)})),"
            f" name = CONCAT(name, 'x'), flags = flags + 1, seen = NOW(6) WHERE id = {customer}",
            f"UPDATE web.sessions SET day = day + INTERVAL {chance.randint(-30, 30)} DAY WHERE id = {customer}",
        )
        yield (_any_type(chance),)
        number = chance.randrange(len(COLLATIONS))
        yield (
            f"INSERT INTO web.tags_{number} VALUES ('É{chance.randint(1, 999)}', 1)"
            " ON DUPLICATE KEY UPDATE used = used + 1",
        )
        yield from _rarely(chance, client, customer, sku)


def _any_type(chance: random.Random) -> str:
    """One column takes the value of another row."""
    name = chance.choice(TYPES)[0]
    here, there = chance.randint(4, 39), chance.randint(1, 3)
    return (
        f"UPDATE web.everything t, (SELECT {name} v FROM web.everything WHERE id = {there}) s"
        f" SET t.{name} = s.v WHERE t.id = {here}"
    )


def _rarely(chance: random.Random, client: int, customer: int, sku: str) -> Iterator[tuple[str, ...]]:
    if chance.random() < 0.02:  # it has no key: a replica reads the whole table for each of these
        yield (f"UPDATE web.page_views SET url = 'seen' WHERE session = {chance.randint(0, 999)} LIMIT 3",)
    if chance.random() < 0.1:  # reaches down to order lines
        yield (f"DELETE FROM web.customers WHERE id = {customer}",)
    if (
        chance.random() < 0.1
    ):  # not to another spelling of the same: no replica of 9.7 takes that (error 1451)
        renamed = sku.replace("art", "new")
        yield (
            f"UPDATE web.products SET sku = IF(sku = {sku}, {renamed}, {sku}) WHERE sku IN ({sku}, {renamed})",
        )
    if chance.random() < 0.05:
        parent = f"Kategorie ß{chance.randint(1, 20)}"
        yield (f"UPDATE web.categories SET parent = '{parent}' WHERE name = 'Kategorie ß{client}'",)
    if chance.random() < 0.1:
        yield (
            "INSERT INTO web.customers (email, name, place, taste) VALUES"
            f" ('{client}-{chance.random()}@new.org', 'neu', ST_GeomFromText('POINT(1 1)', 4326), NULL)",
        )
