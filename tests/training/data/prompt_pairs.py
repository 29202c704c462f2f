"""Pairs of prompts, written by hand: those that ask the same in other words, and those of one pattern that do not.

The rules of training/data/differences.py were made with the first 84 pairs in view, the threshold with those and the
next 58. The last 42 came after both; one rule, of words that change places, was added because of them.
"""

SAME: list[tuple[str, str]] = [
    ("What is the capital of France?", "Tell me which city is France's capital."),
    ("How do I boil an egg?", "What is the best way to boil an egg?"),
    ("Explain how photosynthesis works.", "Can you explain to me how photosynthesis works?"),
    ("Write a poem about the sea.", "Please compose a poem about the sea."),
    ("What are the symptoms of the flu?", "Which symptoms does the flu have?"),
    ("Who wrote Pride and Prejudice?", "Who is the author of Pride and Prejudice?"),
    ("How many planets are there in the solar system?", "What is the number of planets in our solar system?"),
    ("Translate 'good morning' into Spanish.", "How do you say 'good morning' in Spanish?"),
    ("Write a Python function that reverses a string.", "Give me a function in Python which reverses a string."),
    ("What is the difference between a virus and a bacterium?", "How does a virus differ from a bacterium?"),
    ("Summarize the plot of Romeo and Juliet.", "Give me a summary of the plot of Romeo and Juliet."),
    ("What causes the seasons on Earth?", "Why does the Earth have seasons?"),
    ("How can I learn to play the guitar?", "I want to learn to play the guitar. How should I start?"),
    ("What is 17 times 23?", "Multiply 17 by 23."),
    ("List five ways to save energy at home.", "Name five ways in which I can save energy at home."),
    ("Explain quantum computing to a child.", "Explain quantum computing in a way that a child understands."),
    ("What is the boiling point of water at sea level?", "At what temperature does water boil at sea level?"),
    ("Why is the sky blue?", "What makes the sky look blue?"),
    ("Give me a recipe for chocolate chip cookies.", "How do I make chocolate chip cookies? I need a recipe."),
    ("What does the word 'ephemeral' mean?", "Define the word 'ephemeral'."),
    ("Convert 100 degrees Fahrenheit to Celsius.", "What is 100 degrees Fahrenheit in Celsius?"),
    ("Write a cover letter for a job as a nurse.", "Help me write a cover letter. I am applying for a job as a nurse."),
    ("When did the Second World War end?", "In which year did the Second World War come to an end?"),
    ("How do I remove a red wine stain from a carpet?", "What removes red wine stains from carpets?"),
    ("Suggest a name for a coffee shop.", "Can you suggest some name for my coffee shop?"),
    ("What are the main causes of climate change?", "Tell me the main causes of climate change."),
    ("Describe the life cycle of a butterfly.", "Give a description of the life cycle of butterflies."),
    (
        "How do I sort a list of dictionaries by a key in Python?",
        "In Python, how can a list of dictionaries be sorted by a key?",
    ),
    ("Plan a trip of three days to Kyoto.", "Make me a plan for a three day trip to Kyoto."),
    ("Who painted the Mona Lisa?", "The Mona Lisa was painted by whom?"),
    ("Compare cats and dogs as pets.", "As pets, how do cats and dogs compare?"),
    ("Is it safe to eat raw salmon?", "Can I safely eat raw salmon?"),
    (
        "A train leaves at 9:40 and travels 180 km at 60 km/h. When does it arrive?",
        "At 9:40 a train departs. It goes 180 km at a speed of 60 km/h. What is its time of arrival?",
    ),
    (
        "Write a short story about a lighthouse keeper who finds a message in a bottle and decides to answer it.",
        "Please write me a short story: a lighthouse keeper finds a message in a bottle and decides to answer it.",
    ),
    (
        "I have chicken, rice, broccoli and soy sauce. What can I cook for dinner tonight with only these ingredients?",
        "What can I cook tonight for dinner if the only ingredients I have are chicken, rice, broccoli and soy sauce?",
    ),
    (
        "Explain the difference between supervised and unsupervised learning, and give an example of each.",
        "What is the difference between unsupervised and supervised learning? Please give one example for each of them.",
    ),
    (
        "You are a travel agent. Recommend a destination in Europe for a couple that loves hiking and good food.",
        "Act as a travel agent and recommend to a couple, who love hiking and good food, a destination in Europe.",
    ),
    (
        "My laptop does not turn on any more although the battery is full. What should I check first?",
        "Although its battery is full, my laptop won't turn on anymore. What are the first things I should check?",
    ),
]
"""A person who has been asked the first has been asked the second."""

DIFFERENT: list[tuple[str, str]] = [
    ("What is the capital of France?", "What is the capital of Spain?"),
    ("What is the capital of France?", "What is the population of France?"),
    ("Translate 'good morning' into French.", "Translate 'good night' into French."),
    ("Translate 'good morning' into French.", "Translate 'good morning' into German."),
    ("Translate into French: The house is red.", "Translate into French: My dog is hungry."),
    ("Write a poem about the sea.", "Write a poem about the moon."),
    ("Write a poem about cats.", "Write a poem about dogs."),
    ("Write a haiku about autumn.", "Write a haiku about winter."),
    ("What is 17 times 23?", "What is 17 times 32?"),
    ("What is 17 times 23?", "What is 17 plus 23?"),
    ("Solve for x: 3x + 5 = 20.", "Solve for x: 4x + 5 = 21."),
    ("How many legs do eight spiders have?", "How many legs do six spiders have?"),
    ("Write a Python function that reverses a string.", "Write a Python function that reverses a list."),
    ("Write a Python function that reverses a string.", "Write a Java function that reverses a string."),
    ("Who wrote Pride and Prejudice?", "Who wrote War and Peace?"),
    ("Who painted the Mona Lisa?", "Who painted The Starry Night?"),
    ("Summarize the plot of Romeo and Juliet.", "Summarize the plot of Hamlet."),
    ("What are the symptoms of the flu?", "What are the symptoms of measles?"),
    ("What are the symptoms of the flu?", "What are the causes of the flu?"),
    ("Convert 100 degrees Fahrenheit to Celsius.", "Convert 100 degrees Celsius to Fahrenheit."),
    ("Convert 100 degrees Fahrenheit to Celsius.", "Convert 120 degrees Fahrenheit to Celsius."),
    ("What does the word 'ephemeral' mean?", "What does the word 'ubiquitous' mean?"),
    ("Give me a recipe for chocolate chip cookies.", "Give me a recipe for banana bread."),
    ("List five ways to save energy at home.", "List ten ways to save energy at home."),
    ("List five ways to save energy at home.", "List five ways to save money at home."),
    ("When did the Second World War end?", "When did the First World War end?"),
    ("When did the Second World War end?", "When did the Second World War begin?"),
    ("How do I boil an egg?", "How do I fry an egg?"),
    ("Compare cats and dogs as pets.", "Compare rabbits and hamsters as pets."),
    ("Plan a trip of three days to Kyoto.", "Plan a trip of three days to Lisbon."),
    ("Write a cover letter for a job as a nurse.", "Write a cover letter for a job as a teacher."),
    ("Explain quantum computing to a child.", "Explain quantum computing to an expert."),
    ("What are the advantages of solar energy?", "What are the disadvantages of solar energy?"),
    (
        "Is the sentence positive or negative? I love this film.",
        "Is the sentence positive or negative? I hate this film.",
    ),
    ("Write a review of the book Dune.", "Write a review of the book Emma."),
    ("What is the chemical symbol of gold?", "What is the chemical symbol of silver?"),
    ("How tall is Mount Everest?", "How tall is the Eiffel Tower?"),
    ("Correct the grammar: He go to school.", "Correct the grammar: They was late."),
    ("Explain how to install Docker on Ubuntu.", "Explain how to install Docker on Windows."),
    ("What is the meaning of the idiom 'break the ice'?", "What is the meaning of the idiom 'spill the beans'?"),
    (
        "A train leaves at 9:40 and travels 180 km at 60 km/h. When does it arrive?",
        "A train leaves at 9:40 and travels 240 km at 60 km/h. When does it arrive?",
    ),
    (
        "Write a short story about a lighthouse keeper who finds a message in a bottle and decides to answer it.",
        "Write a short story about a mountain guide who finds a letter in a cave and decides to answer it.",
    ),
    (
        "I have chicken, rice, broccoli and soy sauce. What can I cook for dinner tonight with only these ingredients?",
        "I have lentils, carrots, onions and curry paste. What can I cook for dinner tonight with only these ingredients?",
    ),
    (
        "Classify the following review as positive or negative and answer with one word only. Review: The soup was cold "
        "and the waiter ignored us for half an hour.",
        "Classify the following review as positive or negative and answer with one word only. Review: A charming little "
        "place with the best pancakes that I have ever had.",
    ),
    (
        "You are a travel agent. Recommend a destination in Europe for a couple that loves hiking and good food.",
        "You are a travel agent. Recommend a destination in Asia for a family that loves beaches and good food.",
    ),
    (
        "Given the premise, does the hypothesis follow? Premise: A man plays a guitar on stage. Hypothesis: A man sleeps.",
        "Given the premise, does the hypothesis follow? Premise: Two girls ride horses on a beach. Hypothesis: Girls ride.",
    ),
]
"""The words are much the same, and another answer is right."""

SAME_SECOND: list[tuple[str, str]] = [
    ("how do i get better at chess", "What can I do to improve at chess?"),
    ("Write an email to my boss asking for a day off.", "Compose an email in which I ask my boss for a day off."),
    ("What is the largest ocean in the world?", "Which ocean is the largest one in the world?"),
    ("Who is the president of the United States?", "Who is the US president?"),
    ("Give three examples of renewable energy.", "Name 3 examples of renewable energy sources."),
    (
        "Fix the bug in this code: for i in range(10) print(i)",
        "This code has a bug, please fix it: for i in range(10) print(i)",
    ),
    ("What is the derivative of x^2 + 3x?", "Differentiate x^2 + 3x."),
    ("Why do leaves change colour in autumn?", "What is the reason that leaves change color in autumn?"),
    ("How long does it take to fly from London to New York?", "How many hours is the flight from London to New York?"),
    ("Explain the theory of relativity in simple terms.", "Can you explain relativity theory simply?"),
    ("What should I pack for a week of camping?", "Packing list for a camping trip of one week, please."),
    ("Tell me a joke about programmers.", "Do you know a joke about programmers?"),
    ("What does DNA stand for?", "What is DNA an abbreviation of?"),
    (
        "Create a workout plan for beginners without any equipment.",
        "I need a workout plan without equipment, suitable for a beginner.",
    ),
    ("Is Pluto a planet?", "Does Pluto count as a planet?"),
    (
        "Proofread this sentence: Their going too the park tomorow.",
        "Please proofread the following sentence. Their going too the park tomorow.",
    ),
    ("How does a vaccine work?", "Explain how vaccines work."),
    ("What year was the Eiffel Tower built?", "When was the Eiffel Tower built?"),
    (
        "Write a SQL query that returns the ten customers with the highest revenue.",
        "I need a SQL query to get the ten customers whose revenue is highest.",
    ),
    ("How do I center a div in CSS?", "What is the way to center a div with CSS?"),
    ("What's the tallest mountain in Africa?", "Which mountain in Africa is the tallest?"),
    ("Give me tips for a job interview.", "What tips do you have for a job interview?"),
    (
        "A farmer has 15 sheep and buys 8 more. How many sheep does he have?",
        "If a farmer who owns 15 sheep buys 8 more sheep, how many does he own then?",
    ),
    (
        "Summarize in one sentence: The meeting was moved to Friday because the room was taken.",
        "Give a summary in one sentence of this: The meeting was moved to Friday because the room was taken.",
    ),
    (
        "Imagine that you are a pirate. Describe your ship, your crew and the treasure that you are looking for.",
        "Describe, as if you were a pirate, your crew, your ship, and the treasure you are looking for.",
    ),
    ("Which vitamins are in an orange?", "What vitamins does an orange contain?"),
]
DIFFERENT_SECOND: list[tuple[str, str]] = [
    ("how do i get better at chess", "how do i get better at tennis"),
    ("Write an email to my boss asking for a day off.", "Write an email to my boss asking for a raise."),
    ("What is the largest ocean in the world?", "What is the smallest ocean in the world?"),
    ("Who is the president of the United States?", "Who is the president of Brazil?"),
    ("Give three examples of renewable energy.", "Give three examples of chemical energy."),
    ("Fix the bug in this code: for i in range(10) print(i)", "Fix the bug in this code: while True print(x)"),
    ("What is the derivative of x^2 + 3x?", "What is the integral of x^2 + 3x?"),
    ("What is the derivative of x^2 + 3x?", "What is the derivative of x^3 - 3x?"),
    ("How long does it take to fly from London to New York?", "How long does it take to fly from London to Tokyo?"),
    ("How long does it take to fly from London to New York?", "How long does it take to sail from London to New York?"),
    ("Explain the theory of relativity in simple terms.", "Explain the theory of evolution in simple terms."),
    ("Tell me a joke about programmers.", "Tell me a joke about lawyers."),
    ("What does DNA stand for?", "What does RNA stand for?"),
    (
        "Create a workout plan for beginners without any equipment.",
        "Create a meal plan for beginners without any dairy.",
    ),
    ("Is Pluto a planet?", "Is Venus a planet?"),
    ("What year was the Eiffel Tower built?", "What year was the Brooklyn Bridge built?"),
    (
        "Write a SQL query that returns the ten customers with the highest revenue.",
        "Write a SQL query that returns the ten products with the lowest revenue.",
    ),
    ("How do I center a div in CSS?", "How do I hide a div in CSS?"),
    ("What's the tallest mountain in Africa?", "What's the longest river in Africa?"),
    (
        "A farmer has 15 sheep and buys 8 more. How many sheep does he have?",
        "A farmer has 15 sheep and sells 8. How many sheep does he have?",
    ),
    (
        "A farmer has 15 sheep and buys 8 more. How many sheep does he have?",
        "A baker has 12 loaves and bakes 9 more. How many loaves does he have?",
    ),
    (
        "Summarize in one sentence: The meeting was moved to Friday because the room was taken.",
        "Summarize in one sentence: The concert was cancelled because the singer had lost her voice.",
    ),
    ("Which vitamins are in an orange?", "Which minerals are in an orange?"),
    ("Does coffee raise blood pressure?", "Does coffee lower blood pressure?"),
    ("Write a function that returns the maximum of a list.", "Write a function that returns the minimum of a list."),
    (
        "Rewrite in the active voice: The cake was eaten by Tom.",
        "Rewrite in the active voice: The letter was written by Ann.",
    ),
    ("Generate a title for an article about bees.", "Generate a title for an article about wolves."),
    ("What is heavier, a kilo of iron or a kilo of feathers?", "What is cheaper, a kilo of iron or a kilo of copper?"),
    ("Explain what a linked list is and when to use one.", "Explain what a hash table is and when to use one."),
    ("Should I learn React or Vue?", "Should I learn Rust or Go?"),
    (
        "Extract the names from this text: Anna met Paul in Rome.",
        "Extract the names from this text: Omar called Lucy in Oslo.",
    ),
    (
        "Continue the story: The door opened and nobody was there.",
        "Continue the story: The train stopped and everybody got out.",
    ),
]

SAME_THIRD: list[tuple[str, str]] = [
    ("What are the benefits of regular exercise?", "Why is regular exercise beneficial?"),
    ("How far is the Moon from the Earth?", "What is the distance between the Earth and the Moon?"),
    (
        "Write a limerick about a cat who loves cheese.",
        "Could you write a limerick? It should be about a cheese-loving cat.",
    ),
    ("Explain recursion with an example in JavaScript.", "Using an example in JavaScript, explain what recursion is."),
    ("What is the currency of Japan?", "Which currency is used in Japan?"),
    ("How do I reset my Windows password?", "I forgot my Windows password. How can I reset it?"),
    (
        "Write a thank you note to my grandmother for the birthday present.",
        "Help me thank my grandmother for her birthday present with a short note.",
    ),
    ("What is the square root of 144?", "Calculate the square root of 144."),
    (
        "Give me ideas for a birthday party for a six year old.",
        "I need some birthday party ideas for my child who is turning 6 years old.",
    ),
    ("What happens if you mix bleach and ammonia?", "What is the result of mixing ammonia with bleach?"),
    ("Who discovered penicillin?", "Penicillin was discovered by which scientist?"),
    ("What is the plot of the film Inception?", "Tell me what happens in the film Inception."),
    ("How do magnets work?", "Can you explain the way magnets work?"),
    (
        "Write a product description for a wooden toy train.",
        "I sell a wooden toy train. Write the product description.",
    ),
    ("What's a good substitute for eggs in baking?", "In baking, what can I use as a substitute for eggs?"),
    ("How many bones does an adult human have?", "What is the number of bones in the body of an adult human?"),
    ("Sort these numbers from small to large: 8, 3, 11, 5.", "Put the numbers 8, 3, 11, 5 in order, smallest first."),
    ("What is the best time of the year to visit Iceland?", "When should I visit Iceland?"),
    ("Name the countries that border Switzerland.", "Which countries does Switzerland border?"),
    ("Turn this sentence into a question: She likes apples.", "Rewrite this sentence as a question: She likes apples."),
]
DIFFERENT_THIRD: list[tuple[str, str]] = [
    ("What are the benefits of regular exercise?", "What are the risks of regular exercise?"),
    ("How far is the Moon from the Earth?", "How far is Mars from the Earth?"),
    ("Write a limerick about a cat who loves cheese.", "Write a limerick about a dog who hates baths."),
    ("Explain recursion with an example in JavaScript.", "Explain closures with an example in JavaScript."),
    ("What is the currency of Japan?", "What is the currency of Mexico?"),
    ("How do I reset my Windows password?", "How do I reset my Gmail password?"),
    ("What is the square root of 144?", "What is the square root of 169?"),
    ("What is the square root of 144?", "What is the cube root of 144?"),
    (
        "Give me ideas for a birthday party for a six year old.",
        "Give me ideas for a birthday present for a six year old.",
    ),
    ("Who discovered penicillin?", "Who discovered radium?"),
    ("What is the plot of the film Inception?", "What is the plot of the film Titanic?"),
    ("How many bones does an adult human have?", "How many teeth does an adult human have?"),
    ("Sort these numbers from small to large: 8, 3, 11, 5.", "Sort these numbers from large to small: 8, 3, 11, 5."),
    ("What is the best time of the year to visit Iceland?", "What is the best way to travel around Iceland?"),
    ("Name the countries that border Switzerland.", "Name the languages that are spoken in Switzerland."),
    ("Turn this sentence into a question: She likes apples.", "Turn this sentence into a question: He plays chess."),
    ("Write a product description for a wooden toy train.", "Write a product description for a leather travel bag."),
    ("How can I lose weight?", "How can I gain weight?"),
    ("Is it legal to record a phone call in California?", "Is it legal to record a phone call in Texas?"),
    (
        "Add a docstring to this function: def area(r): return 3.14 * r ** 2",
        "Add a docstring to this function: def hello(): print('hello')",
    ),
    ("What time is it in Tokyo when it is noon in Berlin?", "What time is it in Berlin when it is noon in Tokyo?"),
    ("Tell me about the history of chess.", "Tell me about the rules of chess."),
]

ALL_SAME = [*SAME, *SAME_SECOND, *SAME_THIRD]
ALL_DIFFERENT = [*DIFFERENT, *DIFFERENT_SECOND, *DIFFERENT_THIRD]
